"""Pages in a headless browser, for tests of what is seen of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
SIZES = [(1280, "light"), (390, "light"), (390, "dark")]
# For each piece of text: [text, left, right, top, bottom]; without text in elements that scroll by themselves.
TEXTS = """root => [...root.querySelectorAll("*")].filter(e => !e.closest(".scroll") && !e.closest("head"))
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) && e.tagName !== "title")
    .map(e => [e.textContent, e.getBoundingClientRect()]).map(([t, r]) => [t, r.left, r.right, r.top, r.bottom])"""


def covered(page: Page) -> list[tuple[str, str]]:
    """The pairs of texts of a chart that cover one another."""
    found = []
    for texts in page.evaluate(f'[...document.querySelectorAll(".chart")].map({TEXTS})'):
        for number, (text, left, right, top, bottom) in enumerate(texts):
            for other, left2, right2, top2, bottom2 in texts[:number]:
                if other in text or text in other:
                    continue  # a part of the same text
                if left < right2 and left2 < right and top + 3 < bottom2 and top2 + 3 < bottom:
                    found.append((text, other))
    return found


@contextmanager
def opened(browser: Browser, path: Path, width: int = 1280, scheme: str = "light") -> Iterator[Page]:
    """The file in a browser window; fails if the page logs an error or requests anything else."""
    complaints: list[str] = []
    requests: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]  # a Literal
    page.set_default_timeout(0)  # the machine may be slow
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    yield page
    page.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
