"""The page's sentences; what they say of the outcome, they say from the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_ccn.studies.html_report.figures import METRICS, agreement
from lightning_ccn.studies.html_report.svg import decimal
from lightning_ccn.studies.html_report.tables import count
from lightning_ccn.studies.html_report.values import SystemEntry, error, mean, ranked

Comparison = Mapping[str, Any]

AUC = "All items of the test split in one ranking."
PAGE_AUC = "Items ranked within their page, then averaged over pages: the order on one screen."
QUICK = (
    "A quick comparison: one run of each system, none with a learning rate of its own. It shows that everything works; "
    "it cannot tell a small difference from chance."
)
MEASURES = (
    "Normalised entropy is log loss over that of the constant click rate. Calibration is predicted over observed "
    "clicks. The learning rate is a multiple of the configuration’s, of layers and tables alike. Minutes are a run’s, "
    "on a machine that other runs may have shared."
)
DEGREES = (
    "Clicked and unclicked items, each cluster scaled to the same area: before training in the first pages of the "
    "validation split, after it in the test split; the first run of each system that has a collaborative module. The "
    "number is the share of pairs of a clicked and an unclicked item in which the clicked one has the higher degree: "
    ".5 where the clusters do not part, below where it is the lower degree that speaks for a click."
)
LEARNING = (
    "AUC of the validation split; cross entropy of training, averaged over neighbouring steps; and the same less that "
    "of the baseline’s run with the same seed, which reads the same pages at the same step: below 0, the system has "
    "learnt more from them. Every run is a line. Grey: the first run of every other system."
)
CALIBRATION = (
    "Items in twenty groups of neighbouring predictions: their click rate less their mean prediction, in percentage "
    "points, over the prediction. Every run is a line. Between the ends of the band, two standard errors, chance alone "
    "could explain a difference."
)


def headline(comparison: Comparison) -> str:
    """What came out; TAN is taken with the degree that does it more good."""
    systems: Sequence[SystemEntry] = comparison["systems"]
    best = ranked(systems, "auc")[0]
    value, spread = mean(best, "auc"), error(best, "auc")
    if value is None:
        return "No system has an AUC on this test split: are all its labels equal?"
    said = f"{best['title']} has the highest AUC, {decimal(value, 4)}" + (
        f" ± {decimal(spread, 4)}. " if spread else ". "
    )
    by_name = {str(system["name"]): system for system in systems}
    tans = [by_name[name] for name in ("tan", "tan_bounded") if name in by_name]
    if not tans or "ccn" not in by_name or "sim" not in by_name:
        return said
    for metric, name in METRICS.items():
        tan = ranked(tans, metric)[0]
        ccn, middle, sim = mean(by_name["ccn"], metric), mean(tan, metric), mean(by_name["sim"], metric)
        if ccn is not None and middle is not None and sim is not None:
            said += f"In {name}, {tan['title']} is {points(middle - sim)} SIM and CCN {points(ccn - middle)} that. "
    return said


def points(difference: float) -> str:
    """A difference of AUCs in words.

    >>> points(0.0041), points(-0.0012)
    ('.41 points above', '.12 points below')
    """
    return f"{decimal(abs(100 * difference), 2)} points {'above' if difference >= 0 else 'below'}"


def marks(comparison: Comparison) -> str:
    """How to read the figures of AUC."""
    protocol = comparison["protocol"]
    runs = len(protocol["seeds"])
    baseline = next((s["title"] for s in comparison["systems"] if s["name"] == protocol["baseline"]), None)
    dashed = f" The dashed line is {baseline}’s." if baseline else ""
    if runs < 2:
        return "A point is the only run, so there is no standard error: it would take two." + dashed
    kept = f"the mean of {runs - protocol['dropped']} of {runs} runs, best and worst left out as in the paper"
    return (
        f"A point is {kept if protocol['dropped'] else f'the mean of {runs} runs'}; its bar is one standard error to "
        f"either side; the ticks are the single runs.{dashed}"
    )


def tests(comparison: Comparison) -> str:
    """What the differences and p-values are."""
    others = sum(bool(system.get("versus")) for system in comparison["systems"])
    if not others:
        return f"A point is .01 of AUC. No differences: they would be to {comparison['protocol']['baseline']}."
    if len(comparison["protocol"]["seeds"]) < 2:
        return "Differences are those of the only run of each; a standard error and a p-value would take two."
    dropped = ", none left out" if comparison["protocol"]["dropped"] else ""
    return (
        f"A point is .01 of AUC. Differences are of runs with the same seed{dropped}; p is of the two-sided paired "
        f"t-test, not corrected for {others} comparisons."
    )


def order(systems: Sequence[SystemEntry]) -> str:
    """How far our order is the paper's."""
    agreeing, pairs = agreement(systems)
    return (
        f"{agreeing} of {pairs} pairs of systems stand here as they stand in the paper’s Table 2, whose data are "
        "other, far larger, and not public."
    )


def bounds(comparison: Comparison) -> str:
    """What the bounds are."""
    known = comparison["bounds"]
    said = "The world that made these data knows each click’s probability."
    if known.get("oracle_auc") is not None:
        said += f" Ranked by it, the AUC is {decimal(known['oracle_auc'], 4)}: clicks are drawn, so not 1."
    if known.get("attainable_auc") is not None:
        said += (
            f" No log shows a visitor’s intent of the moment, or how clickable a page is; with these averaged out, "
            f"{decimal(known['attainable_auc'], 4)} remains for a perfect model to attain."
        )
    return said


def sensitivity(comparison: Comparison) -> str:
    """What was varied, with how many runs."""
    runs = max(len(point["runs"]) for points in comparison["sensitivity"].values() for point in points)
    return (
        f"One option at a time, the others as configured, trained on {_searched_on(comparison)}; a point is the mean "
        f"of {runs} run{'s' * (runs > 1)}. AUC of the test split."
    )


def page_sizes(classes: Sequence[tuple[float, float, float]]) -> str:
    """The classes, and the pages in each."""
    of = [
        f"{low:g} to {high:g} items, {count(pages)} pages" if high < 1e6 else f"{low:g} or more, {count(pages)} pages"
        for low, high, pages in classes
    ]
    return f"Classes: {'; '.join(of)}. Every run is a line. Grey: the first run of every other system."


def search(comparison: Comparison) -> str:
    """How the learning rates were chosen."""
    return (
        f"AUC of the validation split after training on {_searched_on(comparison)}, with a seed of its own. The best, "
        "in bold, is what the system was then trained with. The test split had no say."
    )


def not_searched(comparison: Comparison) -> str:
    """Where the learning rates come from instead."""
    earlier = comparison["protocol"].get("scales_from")
    return f"taken from {earlier}." if earlier else "every system took the same multiple of its configuration’s."


def protocol(comparison: Comparison) -> list[str]:
    """Paragraphs; the command follows."""
    of, state = comparison["protocol"], comparison.get("git") or {}
    seeds = ", ".join(str(seed) for seed in of["seeds"])
    errors = "The standard error is that of the mean over runs."
    if of["dropped"]:
        errors = (
            "The standard error of a mean without the best and the worst run is that of a trimmed mean, from the "
            "winsorised variance: the runs that are left lie too close together to tell."
        )
    versions = ", ".join(f"{name} {number}" for name, number in comparison["versions"].items())
    if state.get("commit"):
        versions += f", commit {state['commit'][:10]}" + " with changes" * bool(state.get("changed"))
    return [
        "Every system reads the same pages in batches of the same size, through embeddings and a head of the same "
        f"width, and is trained once for each seed: {seeds}. A seed fixes all that is drawn at random, so runs of one "
        "seed are pairs. The test split is read once by each finished run; nothing is chosen by it.",
        errors,
        f"All runs together took {comparison['minutes']:,.1f} minutes, one after another. Numbers without rounding, "
        "every run’s metrics and its curves are in compare.json beside this file.",
        f"{versions}.",
    ]


def _searched_on(comparison: Comparison) -> str:
    share = comparison["protocol"].get("search_share", 1.0)
    return "the same training data" if share == 1 else f"{100 * share:g}% of the training data"
