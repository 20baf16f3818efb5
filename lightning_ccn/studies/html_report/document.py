"""What the page shows, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_ccn.studies.html_report import captions, figures, panels, tables
from lightning_ccn.studies.html_report.markup import Markup, tag
from lightning_ccn.studies.html_report.values import SystemEntry, diagnostics, family

# Nothing is ever loaded, whatever a title or a path says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
FAMILIES = {
    "ccn": "trigger and collaborative contrast",
    "tan": "trigger, no contrast",
    "intent": "trigger, weighed by its estimated intent",
    "plain": "no trigger",
}


def write_page(comparison: Mapping[str, Any], path: Path) -> None:
    """Writes the report.

    Args:
        comparison: content of compare.json. What it lacks is left out of the page, with a sentence that says why.
        path: of the HTML file.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("link", rel="icon", href="data:,"),
        tag("title", f"{len(comparison['systems'])} systems on {comparison['dataset']['folder']}"),
        tag("style", Markup(Path(__file__).with_name("page.css").read_text(encoding="utf-8"))),
    )
    page = tag("html", head, tag("body", tag("main", *_sections(comparison))), lang="en")
    path.write_text(f"<!doctype html>\n{page}\n", encoding="utf-8")


def _sections(comparison: Mapping[str, Any]) -> list[Markup]:
    systems: Sequence[SystemEntry] = comparison["systems"]
    baseline = str(comparison["protocol"]["baseline"])
    left_out: list[Markup] = []

    def figure(title: str, lacks: str | None, draw: Callable[[], Markup], note: Callable[[], str]) -> Markup:
        """What can be drawn; else a line at the end of the page."""
        if lacks is None:
            return _figure(title, draw(), note())
        left_out.append(tag("li", tag("b", title), f": {lacks}"))
        return Markup()

    def unless(there: object, reason: str) -> str | None:
        return None if there else reason

    classes = panels.size_classes(systems)
    sections = [
        _opening(comparison),
        tag(
            "div",
            _figure("AUC", figures.ranking(systems, "auc", baseline), captions.AUC),
            _figure("Page AUC", figures.ranking(systems, "page_gauc", baseline), captions.PAGE_AUC),
            class_="pair",
        ),
        tag("p", captions.marks(comparison), class_="note"),
        _figure("Results", tables.results(systems, baseline), captions.tests(comparison)),
        tag(
            "div",
            figure(
                "The order, and the paper’s",
                unless(len(figures.in_both(systems)) > 1, "fewer than two of these systems stand in its Table 2."),
                lambda: figures.order(systems),
                lambda: captions.order(systems),
            ),
            figure(
                "What could be reached at all",
                unless(comparison.get("bounds"), "only a synthetic world knows the probabilities behind its clicks."),
                lambda: figures.bounds(systems, comparison["bounds"]),
                lambda: captions.bounds(comparison),
            ),
            class_="pair",
        ),
        figure(
            "The two clusters of collaborative degree",
            unless(_recorded(systems, "degrees"), "no run recorded degrees; only systems of TAN and CCN have them."),
            lambda: panels.degrees(systems),
            lambda: captions.DEGREES,
        ),
        figure(
            "What λ, τ and ξ do to CCN",
            unless(comparison.get("sensitivity"), "this comparison did not vary them."),
            lambda: figures.sensitivity(comparison["sensitivity"]),
            lambda: captions.sensitivity(comparison),
        ),
        figure(
            "Page AUC by the number of items on a page",
            unless(classes, "no run recorded it."),
            lambda: panels.page_sizes(systems),
            lambda: captions.page_sizes(classes),
        ),
        figure(
            "Learning curves",
            unless(panels.has_curves(systems), "no run logged a loss or was validated."),
            lambda: panels.learning(systems, baseline),
            lambda: captions.LEARNING,
        ),
        figure(
            "Calibration",
            unless(_recorded(systems, "calibration"), "no run recorded it, by groups of predictions."),
            lambda: panels.calibration(systems),
            lambda: captions.CALIBRATION,
        ),
        _figure("Everything else that was measured", tables.measures(systems), captions.MEASURES),
        figure(
            "The search for the learning rate",
            unless(any(system.get("search") for system in systems), captions.not_searched(comparison)),
            lambda: tables.search(systems),
            lambda: captions.search(comparison),
        ),
        tag(
            "section",
            tag("h2", "How it was done"),
            *(tag("p", text) for text in captions.protocol(comparison)),
            tag("p", tag("code", comparison["command"])),
        ),
    ]
    if left_out:
        sections.append(tag("section", tag("h2", "Not shown"), tag("ul", *left_out), class_="left-out"))
    return sections


def _recorded(systems: Sequence[SystemEntry], kind: str) -> bool:
    return any(diagnostics(system, kind) for system in systems)


def _opening(comparison: Mapping[str, Any]) -> Markup:
    systems, data = comparison["systems"], comparison["dataset"]
    shown = {family(system) for system in systems}
    facts = {
        "systems": str(len(systems)),
        "runs of each": str(len(comparison["protocol"]["seeds"])),
        **{f"{split} pages": tables.count(number) for split, number in data["pages"].items()},
        "items shown": tables.count(data["items"]),
        "of them clicked": f"{100 * data['clicks'] / max(data['items'], 1):.1f}%",
    }
    return tag(
        "header",
        tag("p", str(data["folder"]), class_="folder"),
        tag("h1", f"{len(systems)} systems on one backbone" if len(systems) > 1 else str(systems[0]["title"])),
        tag("p", captions.headline(comparison), class_="headline"),
        *([tag("p", captions.QUICK, class_="quick")] if comparison.get("quick") else []),
        tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items())),
        tag(
            "p",
            *(tag("span", FAMILIES[name], class_=f"key {name}") for name in FAMILIES if name in shown),
            class_="families",
        ),
    )


def _figure(title: str, body: Markup, note: str) -> Markup:
    return tag("figure", tag("h2", title), body, tag("figcaption", note))
