"""`Service`, called as a server calls it: answers, refusals, reloads and metrics."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_ccn.serving import Request, Scorer, Scores
from lightning_ccn.serving.service.app import Service
from lightning_ccn.serving.service.limits import ServiceLimits
from tests.serving.service.asgi import JSON, Answered, Body, Loop, call, post
from tests.serving.service.conftest import EXAMPLES, changed, set_examples, set_vectors

PAGE = EXAMPLES[0]
PATIENT = ServiceLimits(most_seconds=3600)  # the machine may be slow
TOKEN = "a-token-that-is-hard-to-guess"


def value(text: bytes, metric: str) -> float:
    """What `/metrics` says of a series."""
    (found,) = re.findall(rf"^{re.escape(metric)} (\S+)$", text.decode(), re.MULTILINE)
    return float(found)


def test_it_answers_what_the_scorer_does(service: Service, package: Path, loop: Loop) -> None:
    answered = loop.run(post(service, PAGE))
    scores = Scorer(package).answer(Request.from_plain(PAGE))
    assert scores.degree is not None
    assert (answered.status, answered.headers["content-type"]) == (200, "application/json")
    assert answered.plain == {
        "probability": pytest.approx(scores.probability.tolist(), rel=1e-8),
        "degree": pytest.approx(scores.degree.tolist(), rel=1e-8),
        "intent": None,
        "unknown": {"items": 2},
        "unknown_items": [2, 3],
        "defaulted": ["numbers.price"],  # one of them is null
        "package": service.served.digest,
    }


def test_times_are_asked_for_where_the_model_reads_them(service: Service, timed_package: Path, loop: Loop) -> None:
    timed = Service(timed_package, PATIENT)
    assert {"time", "short_times", "long_times"} <= timed.served.request["properties"].keys()
    request = {"items": [1007], "short": [1001, 1002], "time": 1_800_000_000, "short_times": [1_700_000_000] * 2}
    assert loop.run(post(timed, request)).status == 200
    missing = loop.run(post(timed, {"requests": [{"items": [1007]}, {"items": [1007], "short": [1001]}]}))
    assert missing.status == 422
    assert missing.plain["error"].startswith("requests[1].short_times: missing; the model reads how long ago")
    refused = loop.run(post(service, request))
    assert (refused.status, refused.plain) == (
        422,
        {"error": "time: the model does not read when behaviours were; leave it out"},
    )


def test_a_list_of_requests_gets_the_answers_of_each(service: Service, loop: Loop) -> None:
    each = [loop.run(post(service, request)).plain for request in EXAMPLES]
    together = loop.run(post(service, {"requests": EXAMPLES})).plain
    assert together.pop("package") == each[0].pop("package") == each[1].pop("package")
    assert together == {"answers": each}


def test_no_candidates_and_no_requests_are_answered(service: Service, loop: Loop) -> None:
    answered = loop.run(post(service, {"items": []})).plain
    assert (answered["probability"], answered["degree"], answered["unknown_items"]) == ([], [], [])
    assert loop.run(post(service, {"requests": []})).plain["answers"] == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON: line 1, column 1"),
        (b'{"items": [1,\n 2', "not JSON: line 2, column 3"),
        (b"\xff\xfe{}", "not UTF-8: byte 0"),
        (b'{"items": [NaN]}', "NaN, which is not JSON; give null"),
        (b'{"items": [-Infinity]}', "-Infinity, which is not JSON"),
        (b'{"items": [1], "items": [2]}', "field 'items' twice"),
        (b"[" * 19_000, "nested too deeply"),
        (b'{"items": [' + b"1" * 5_000 + b"]}", "integer with thousands of digits"),
    ],
    ids=lambda words: None if isinstance(words, bytes) else words,
)
def test_what_is_not_json_is_refused(service: Service, loop: Loop, body: bytes, words: str) -> None:
    answered = loop.run(call(service, "POST", "/score", body))
    assert answered.status == 400
    assert words in answered.error


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ([], "a request is an object with items"),
        ({}, "items: missing"),
        ({"items": "all"}, "items: 'all' is not a list"),
        ({"items": [1], "item": 2}, "'item': no such field"),
        ({"items": [1, "x"]}, "items[1]: 'x' is not an integer"),
        ({"items": [2**70]}, "items[0]: 1180591620717411303424 does not fit 64 bits"),
        ({"items": [1], "user": {"age": 3}}, "user.'age': no such feature"),
        ({"items": [1], "numbers": {"price": [1, 2]}}, "numbers.price: has 2 numbers for 1 items"),
        ({"items": [1], "numbers": {"price": [1e300]}}, "numbers.price[0]: 1e+300 is too far"),
        ({"items": [1] * 51}, "items: has 51 candidates, and at most 50"),
        ({"requests": 3}, "requests: must be a list"),
        ({"requests": [], "items": []}, "'items': no such field beside requests"),
        ({"requests": [{"items": []}] * 5}, "requests: has 5, and at most 4"),
        ({"requests": [{"items": []}, {"items": [0.5]}]}, "requests[1].items[0]: 0.5 is not an integer"),
        ({"requests": [{"items": []}, {"item": []}]}, "requests[1].'item': no such field"),
    ],
    ids=lambda words: words if isinstance(words, str) else None,
)
def test_what_is_no_request_is_refused_by_its_field(service: Service, loop: Loop, request_: object, words: str) -> None:
    answered = loop.run(post(service, request_))
    assert answered.status == 422
    assert words in answered.error


def test_a_number_that_no_float_has_is_json_and_refused_by_its_field(service: Service, loop: Loop) -> None:
    answered = loop.run(call(service, "POST", "/score", b'{"items": [1001], "numbers": {"price": [1e400]}}'))
    assert (answered.status, answered.error.split(":")[0]) == (422, "numbers.price[0]")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=latin-1"},
        {**JSON, "content-encoding": "gzip"},
    ],
)
def test_other_types_of_bodies_are_refused(service: Service, loop: Loop, headers: dict[str, str]) -> None:
    answered = loop.run(call(service, "POST", "/score", b'{"items": []}', headers))
    assert answered.status == 415
    assert "Content-" in answered.error


def test_paths_and_methods_that_do_not_exist_are_refused(service: Service, loop: Loop) -> None:
    absent = loop.run(call(service, "GET", "/scores"))
    assert (absent.status, "/score" in absent.error) == (404, True)
    wrong = loop.run(call(service, "GET", "/score"))
    assert (wrong.status, wrong.error, wrong.headers["allow"]) == (405, "/score does not take GET", "POST")
    assert loop.run(call(service, "OPTIONS", "/score")).status == 405  # so that no other site's script may ask


def test_a_body_that_says_it_is_too_large_is_not_read(service: Service, loop: Loop) -> None:
    body = Body([b" " * 10] * 10)
    answered = loop.run(call(service, "POST", "/score", body, {**JSON, "content-length": "20001"}))
    assert (answered.status, body.received) == (413, 0)
    assert "more than 20,000 bytes" in answered.error


def test_a_body_without_a_length_is_read_up_to_the_limit(service: Service, loop: Loop) -> None:
    body = Body([b" " * 1_000] * 1_000)
    answered = loop.run(call(service, "POST", "/score", body))
    assert (answered.status, body.received) == (413, 21)
    request = json.dumps(PAGE).encode()
    assert loop.run(call(service, "POST", "/score", Body([request[:9], b"", request[9:]]))).status == 200


def test_a_token_is_asked_for_but_by_probes_and_for_the_page(package: Path, loop: Loop) -> None:
    service = Service(package, PATIENT, token=TOKEN)
    bearers = [
        f"Bearer {TOKEN}",
        f"bearer  {TOKEN}",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer",
        "Bearer é",
    ]
    statuses = [loop.run(post(service, PAGE, authorization=bearer)).status for bearer in bearers]
    assert statuses == [200, 200, 401, 401, 401, 401, 401]
    closed = [path for path in ("/", "/healthz", "/readyz") if loop.run(call(service, "GET", path)).status != 200]
    assert closed == []
    for path in ("/metrics", "/package", "/nothing"):
        answered = loop.run(call(service, "GET", path))
        assert (answered.status, answered.headers["www-authenticate"]) == (401, "Bearer")
        assert "Authorization: Bearer" in answered.error


async def _while_one_is_sent(service: Service) -> list[Answered]:
    """One call whose body has not come yet, another meanwhile, and a probe."""
    sent = asyncio.Event()
    first = asyncio.create_task(call(service, "POST", "/score", Body([b'{"items": [', b"1001]}"], sent)))
    await asyncio.sleep(0)  # the first takes the place
    second, probe = await post(service, PAGE), await call(service, "GET", "/readyz")
    sent.set()
    return [await first, second, probe]


def test_who_finds_no_place_is_told_to_come_again(package: Path, loop: Loop) -> None:
    service = Service(package, ServiceLimits(most_waiting=0, most_seconds=3600))
    first, second, probe = loop.run(_while_one_is_sent(service))
    assert (second.status, second.headers["retry-after"]) == (503, "1")
    assert "1 requests are at work" in second.error
    assert (first.status, probe.status) == (200, 200)
    assert loop.run(post(service, PAGE)).status == 200


def test_a_body_that_does_not_come_is_given_up(package: Path, loop: Loop) -> None:
    service = Service(package, ServiceLimits(most_seconds=0.05))

    async def never_sent() -> Answered:
        return await call(service, "POST", "/score", Body([b"{", b"}"], asyncio.Event()))

    late = loop.run(never_sent())
    assert (late.status, late.headers["connection"]) == (408, "close")
    assert "within 0.05 seconds" in late.error


def test_what_is_given_up_is_not_scored_to_its_end(package: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    service, calls, scored = Service(package, ServiceLimits(most_seconds=0.05)), [], Scorer.answer

    def slowly(self: Scorer, request: Request) -> Scores:
        calls.append(request)
        time.sleep(0.1)
        return scored(self, request)

    monkeypatch.setattr(Scorer, "answer", slowly)
    many = loop.run(post(service, {"requests": [PAGE] * 9}))
    assert (many.status, "took too long" in many.error) == (504, True)
    while loop.run(post(service, PAGE)).status == 503:  # its thread is taken until it ends
        pass
    assert len(calls) <= 2  # the first of the nine, and that of the last request


def test_metrics_count_answers_candidates_and_unknown_ids(package: Path, loop: Loop) -> None:
    service = Service(package, PATIENT)
    scored = loop.run(post(service, {"requests": [PAGE, {"items": [1, 1001], "user": {"user": 7}}]}))
    for path in ("/nothing", "/else"):
        loop.run(call(service, "GET", path))
    loop.run(post(service, []))
    answered = loop.run(call(service, "GET", "/metrics"))
    text = answered.body
    assert answered.headers["content-type"].startswith("text/plain; version=")
    assert value(text, 'ccn_http_answers_total{path="/score",status="200"}') == 1
    assert value(text, 'ccn_http_answers_total{path="/score",status="422"}') == 1
    assert value(text, 'ccn_http_answers_total{path="other",status="404"}') == 2
    assert value(text, "ccn_score_seconds_count") == 1
    assert value(text, "ccn_candidates_count") == 2
    assert value(text, "ccn_candidates_sum") == 6
    probabilities = [each for part in scored.plain["answers"] for each in part["probability"]]
    assert value(text, "ccn_probability_total") == pytest.approx(sum(probabilities), rel=1e-6)
    assert value(text, 'ccn_unknown_ids_total{field="items"}') == 3
    assert value(text, 'ccn_unknown_ids_total{field="user.user"}') == 1
    assert value(text, 'ccn_fields_left_out_total{field="user.city"}') == 1
    assert value(text, "ccn_requests_in_progress") == 0
    assert f'digest="{service.served.digest}"' in text.decode()


def test_a_reload_serves_the_new_package_and_a_broken_one_is_refused(
    package: Path, newer: Path, broken: Path, tmp_path: Path, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    link = tmp_path / "link"
    link.symlink_to(package)
    service = Service(link, PATIENT)
    first = service.served.digest

    def served(target: Path) -> tuple[bool, dict[str, Any], bytes]:
        link.unlink()
        link.symlink_to(target)
        done = service.reload()
        return done, loop.run(post(service, PAGE)).plain, loop.run(call(service, "GET", "/metrics")).body

    done, answered, text = served(newer)
    second = answered["package"]
    assert (done, second != first, value(text, "ccn_reload_failed")) == (True, True, 0)
    assert f'digest="{second}"' in text.decode()
    assert f'digest="{first}"' not in text.decode()
    done, answered, text = served(broken)
    assert (done, answered["package"], value(text, "ccn_reload_failed")) == (False, second, 1)
    assert "item.values.npy: has" in caplog.text
    assert "the old package stays in service" in caplog.text
    done, answered, text = served(package)
    assert (done, answered["package"], value(text, "ccn_reload_failed")) == (True, first, 0)
    assert value(text, 'ccn_reloads_total{result="done"}') == 2
    assert value(text, 'ccn_reloads_total{result="failed"}') == 1


def test_all_requests_of_a_body_are_answered_by_one_package(
    package: Path, newer: Path, tmp_path: Path, loop: Loop
) -> None:
    link = tmp_path / "link"
    link.symlink_to(package)
    service = Service(link, PATIENT, workers=2)
    digests = {service.served.digest}

    async def all_the_time() -> list[Answered]:
        tasks = []
        for target in (newer, package) * 4:
            tasks += [asyncio.create_task(post(service, {"requests": [PAGE] * 20})) for _ in range(4)]
            await asyncio.sleep(0)
            link.unlink()
            link.symlink_to(target)
            assert await asyncio.to_thread(service.reload)
            digests.add(service.served.digest)
        return [await task for task in tasks]

    bodies = [answered.plain for answered in loop.run(all_the_time())]
    found: dict[str, set[str]] = {}
    for body in bodies:
        found.setdefault(body["package"], set()).update(map(json.dumps, body["answers"]))
    assert set(found) == digests
    assert [len(answers) for answers in found.values()] == [1, 1]
    assert len(set.union(*found.values())) == 2


def test_a_service_that_stops_is_not_ready_and_closes_its_connections(package: Path, loop: Loop) -> None:
    service = Service(package, PATIENT)
    assert "connection" not in loop.run(post(service, PAGE)).headers
    service.stopping = True
    scored, ready = loop.run(post(service, PAGE)), loop.run(call(service, "GET", "/readyz"))
    assert (scored.status, scored.headers["connection"]) == (200, "close")
    assert (ready.status, ready.error) == (503, "the service is stopping")
    assert loop.run(call(service, "GET", "/healthz")).status == 200


def test_the_package_is_described_with_its_examples_as_texts(newer: Path, loop: Loop) -> None:
    service = Service(newer, PATIENT)
    said = loop.run(call(service, "GET", "/package")).plain
    assert said["limits"]["most_items"] == 1000
    assert said["request"] == json.loads((newer / "request.json").read_text())
    first, second = said["examples"]
    assert first == {
        "items": "1057, 1045, 999, null",
        "user.user": "1018",
        "user.city": "1002",
        "user.interests": "1002, 1003",
        "trigger": "1029",
        "short": "1001, 1002",
        "long": "1036, 1017, 1051",
        "numbers.price": "3.75, null, -0.5, 2",
        "page_numbers.age": "102.5",
    }
    assert second == {"items": "1007"}


def test_a_probability_that_is_no_number_is_never_sent(package: Path, tmp_path: Path, loop: Loop) -> None:
    def change(folder: Path) -> None:
        set_vectors(np.nan, slice(2, 3))(folder)  # of item 1001
        set_examples("[]")(folder)

    folder = changed(package, tmp_path / "package", change)
    service = Service(folder, PATIENT)
    assert loop.run(post(service, {"items": [1002]})).status == 200
    answered = loop.run(post(service, {"items": [1002, 1001]}))
    assert (answered.status, "not a number" in answered.error) == (500, True)


def test_answers_say_that_they_are_of_this_type_and_of_no_other_and_not_to_be_kept(
    service: Service, loop: Loop
) -> None:
    for path in ("/", "/score", "/metrics", "/nothing"):
        headers = loop.run(call(service, "GET", path)).headers
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
