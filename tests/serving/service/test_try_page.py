"""The page at /, in a real browser: a person fills it in and sees a ranking."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from lightning_ccn.serving import Request, Scorer
from tests.serving.service.conftest import EXAMPLES, changed
from tests.serving.service.process import ServerProcess
from tests.studies.html_report.browser import SIZES, TEXTS

TOKEN = "a-token-that-is-hard-to-guess"
ROWS = 'rows => rows.map(row => [...row.querySelectorAll(".id, .value span")].map(cell => cell.innerText))'
# For each text that is seen, the contrast of its colour with what is painted behind it, as WCAG computes it.
CONTRAST = """() => {
  const light = color => {
    const part = color.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * part[0] + .7152 * part[1] + .0722 * part[2];
  };
  const behind = e => {
    for (; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$/.test(color)) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const shown = e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())
      || e.matches("input, textarea, select");
  return [...document.body.querySelectorAll("*")]
    .filter(e => e.checkVisibility() && e.tagName !== "SCRIPT" && shown(e))
    .map(e => [light(getComputedStyle(e).color), light(behind(e)), e.textContent || e.id])
    .map(([a, b, text]) => [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), text]);
}"""


@pytest.fixture(scope="module")
def server(newer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose package has examples."""
    server = ServerProcess(newer, tmp_path_factory.mktemp("server") / "log")
    yield server
    server.stop()


@contextmanager
def visited(
    browser: Browser, server: ServerProcess, width: int = 1280, scheme: str = "light", blocked: str = "Failed to load"
) -> Iterator[Page]:
    """The page, filled in by the package; fails if a script fails, or anything but the service is asked.

    `blocked` is in all that the browser may complain of; it also does of every answer of 400 and above.
    """
    complaints: list[str] = []
    asked: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]  # a Literal
    page.set_default_timeout(0)  # the machine may be slow
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(server.url)
    yield page
    page.close()
    assert [text for text in complaints if blocked not in text] == []
    assert {url for url in asked if not url.startswith("data:")} <= {
        f"{server.url}{path}" for path in ("", "package", "score")
    }


def rank(page: Page) -> list[list[str]]:
    """Asks for a ranking; the rows that are shown."""
    page.get_by_role("button", name="Rank the candidates").click()
    page.get_by_role("status").filter(has_text="ranked in").wait_for()
    rows: list[list[str]] = page.locator("tbody tr").evaluate_all(ROWS)
    return rows


def test_an_example_is_ranked_as_the_scorer_does(browser: Browser, server: ServerProcess, newer: Path) -> None:
    scores = Scorer(newer).answer(Request.from_plain(EXAMPLES[0]))
    assert scores.degree is not None
    expected = [
        [f"{name}{' unknown' if name in ('999', 'null') else ''}", f"{100 * probability:#.3g}%", f"{degree:#.3g}"]
        for name, probability, degree in zip(
            ["1057", "1045", "999", "null"], scores.probability, scores.degree, strict=True
        )
    ]
    expected.sort(key=lambda row: -float(row[1][:-1]))
    with visited(browser, server) as page:
        page.get_by_label("Candidates").wait_for()
        assert page.get_by_label("Trigger").input_value() == "1029"
        rows = rank(page)
        assert sorted(rows) == sorted(expected)
        assert [row[1] for row in rows] == [row[1] for row in expected]
        assert page.locator("caption").inner_text() == "4 candidates, the most probable click first"
        widths = page.locator(".probability .bar").evaluate_all("bars => bars.map(bar => parseFloat(bar.style.width))")
        assert widths[0] == 100
        assert widths == sorted(widths, reverse=True)
        said = page.locator("#answer").inner_text()
        assert "how well a candidate fits this user after this trigger" in said
        assert "does not know, which all count as one unknown id: items (2)" in said
        page.get_by_label("Example page").select_option("Page 2")
        assert [row[0] for row in rank(page)] == ["1007"]
        assert "user.user, user.city, user.interests" in page.locator("#answer").inner_text()


def test_ids_that_are_text_are_sent_as_they_are(browser: Browser, of_texts: Path, tmp_path: Path) -> None:
    example = json.loads((of_texts / "examples.json").read_text())["requests"][0]
    server = ServerProcess(of_texts, tmp_path / "log")
    try:
        with visited(browser, server) as page:
            with page.expect_request("**/score") as sent:
                rows = rank(page)
            body = json.loads(sent.value.post_data or "")
            assert {name: body[name] for name in example} == example
            assert sorted(row[0] for row in rows) == sorted(example["items"])
            page.get_by_label("Candidates").fill(f" {example['items'][0]}\n\n{example['items'][1]}")
            page.get_by_label("Trigger").fill("")
            assert sorted(row[0] for row in rank(page)) == sorted(
                [f"{example['items'][0]} unknown", example["items"][1]]
            )
    finally:
        server.stop()


def test_an_error_takes_the_old_ranking_away(browser: Browser, server: ServerProcess) -> None:
    with visited(browser, server) as page:
        page.get_by_label("Candidates").wait_for()
        assert rank(page)
        page.get_by_label("Candidates").fill("abc")
        page.get_by_role("button", name="Rank the candidates").click()
        page.get_by_role("alert").filter(has_text="is not an integer").wait_for()
        assert page.locator("tbody tr").count() == 0


def test_a_person_fills_in_the_form_with_the_keyboard_alone(
    browser: Browser, server: ServerProcess, newer: Path
) -> None:
    request = {"items": [1003, 1001, 1002], "user": {"user": 1004}, "trigger": 1005}
    probability = Scorer(newer).answer(Request.from_plain(request)).probability
    best = ["1003", "1001", "1002"][int(probability.argmax())]
    with visited(browser, server) as page:
        page.get_by_label("Example page").select_option("Page 2")
        page.get_by_label("Example page").focus()
        page.keyboard.press("Tab")
        page.keyboard.type("1004")
        for _ in range(3):  # city, interests
            page.keyboard.press("Tab")
        page.keyboard.type("1005")
        page.keyboard.press("Tab")
        page.keyboard.press("Control+A")
        page.keyboard.type("1003, 1001\n1002")
        for _ in range(4):  # the folded parts, and the button
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.get_by_role("status").filter(has_text="ranked in").wait_for()
        assert page.locator(".id").all_inner_texts()[0] == best
        assert page.locator(".badge").count() == 0


def test_long_ids_are_sent_as_they_are_written(browser: Browser, server: ServerProcess) -> None:
    with visited(browser, server) as page:
        page.get_by_label("Candidates").fill("9007199254740993 007")
        page.get_by_label("user", exact=True).fill("-9223372036854775808")
        with page.expect_request("**/score") as sent:
            page.get_by_role("button", name="Rank the candidates").click()
        body = json.loads(sent.value.post_data or "")
        assert (body["items"], body["user"]["user"]) == ([9007199254740993, 7], -(2**63))


def test_times_are_asked_for_where_the_model_reads_them(browser: Browser, timed_package: Path, tmp_path: Path) -> None:
    server = ServerProcess(timed_package, tmp_path / "log")
    try:
        with visited(browser, server) as page:
            page.get_by_label("Candidates").fill("1001, 1002")
            page.locator("summary").first.click()
            page.get_by_label("Short recent").fill("1003 1004")
            page.get_by_role("button", name="Rank the candidates").click()
            page.get_by_role("alert").filter(has_text="short_times: missing").wait_for()
            page.get_by_label("Times of short").fill("1700000000, 1700000060")
            page.get_by_label("Time of the page").fill("1800000000")
            with page.expect_request("**/score") as sent:
                assert len(rank(page)) == 2
            body = json.loads(sent.value.post_data or "")
            assert (body["time"], body["short_times"]) == (1_800_000_000, [1_700_000_000, 1_700_000_060])
    finally:
        server.stop()


WRONG = {
    "Candidates": ("1001, abc", "items: “abc” is not an integer"),  # the page's own words
    "user": ("99999999999999999999", "user.user: 99999999999999999999 does not fit 64 bits"),  # the service's
    "price": ("1, 2", "numbers.price: has 2 numbers for 4 items"),  # of a folded part
}


def test_what_is_wrong_is_said_at_its_field(browser: Browser, server: ServerProcess) -> None:
    with visited(browser, server) as page:
        for name, (text, words) in WRONG.items():
            field = page.get_by_label(name, exact=name == "user")
            before = field.input_value()
            field.evaluate("(field, text) => field.value = text", text)  # also where it is folded
            page.get_by_role("button", name="Rank the candidates").click()
            page.get_by_role("alert").filter(has_text=words).wait_for()
            assert page.locator("[aria-invalid=true]").count() == 1
            assert field.get_attribute("aria-invalid") == "true"
            assert field.evaluate("field => document.activeElement === field && field.checkVisibility()")
            field.fill(before)
        assert rank(page)
        assert page.locator("[aria-invalid=true]").count() == 0


def test_a_token_is_asked_for(browser: Browser, package: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    without = changed(package, tmp_path / "package", lambda folder: (folder / "examples.json").unlink())
    server = ServerProcess(without, tmp_path / "log", "--token_file", str(tmp_path / "token"))
    try:
        with visited(browser, server) as page:
            page.get_by_role("alert").filter(has_text="a token is needed").wait_for()
            page.get_by_label("Token").fill(TOKEN)
            page.get_by_label("Token").press("Enter")
            page.get_by_label("Candidates").fill("1001, 1002")  # waits for the form
            assert not page.get_by_label("Example page").is_visible()  # this package has none
            assert len(rank(page)) == 2
    finally:
        server.stop()


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_everything_can_be_read_and_fits_the_window(
    browser: Browser, server: ServerProcess, width: int, scheme: str
) -> None:
    with visited(browser, server, width, scheme) as page:
        page.locator("summary").first.wait_for()
        page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        rank(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        texts = page.evaluate(f"({TEXTS})(document.body)")
        assert [text for text, left, right, *_ in texts if left < 0 or right > width] == []
        contrasts = page.evaluate(CONTRAST)
        assert len(contrasts) > 30
        assert [text for contrast, text in contrasts if contrast < 4.5] == []
        unnamed = (
            "fields => fields.filter(field => !field.labels.length || !field.labels[0].innerText.trim()).map(f => f.id)"
        )
        assert page.locator("input:visible, textarea, select").evaluate_all(unnamed) == []


def test_nothing_else_can_run_on_the_page(browser: Browser, server: ServerProcess) -> None:
    with visited(browser, server, blocked="Content Security Policy") as page:
        page.get_by_label("Candidates").wait_for()
        found = page.evaluate(
            """async () => {
                const blocked = [];
                document.addEventListener("securitypolicyviolation", event => blocked.push(event.effectiveDirective));
                const script = document.createElement("script");
                script.textContent = "window.ran = true";
                document.body.append(script);
                await fetch("http://192.0.2.1/").catch(() => 0);
                document.body.insertAdjacentHTML("beforeend", "<p style='color: red' onclick='ran = true'>");
                document.body.lastElementChild.click();  // some browsers look at a handler only when it is called
                await new Promise(done => setTimeout(done, 50));
                return [window.ran === undefined, [...new Set(blocked)].sort()];
            }"""
        )
        assert found == [True, ["connect-src", "script-src-attr", "script-src-elem", "style-src-attr"]]
