"""The report's texts. What they say about the results is computed from the numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import hypot
from typing import Any

from lightning_ccn.studies.html_report.figures import agreement
from lightning_ccn.studies.html_report.svg import decimal
from lightning_ccn.studies.html_report.tables import RANKED, count
from lightning_ccn.studies.html_report.values import SystemEntry, error, mean, metric_titles, ranked, versus

Comparison = Mapping[str, Any]

LEFT_OUT = (
    "Each row is of models that were trained without the pages of this value, and tested on its test pages alone, in "
    "which the value is “unknown”. With several seeds, a number is their mean. “Attainable” is the best AUC that a "
    "model could reach if it knew all about the value, which none of these does. Differences are paired by seed. Their "
    "mean is over the values, and its 95% interval is Student’s with the values as the sample."
)
ORDERS = (
    "The AUC of the probability of an order, p(click) p(order | click), over all items that a run is tested on. "
    "Errors, intervals and p are as in the results."
)
QUICK = (
    "This is a quick comparison: one run per system, without a search. It shows that everything works, "
    "but it cannot tell a small difference from chance."
)
TRIGGER = "The trigger is the item that the user clicked to open the page."
DEGREE = (
    "The collaborative degree is a number that TAN and CCN compute for each item of a page: how well it fits this user "
    "after this trigger."
)
CONTRAST = (
    "Contrast stands for CCN’s two additional losses, which separate the degrees of clicked and unclicked items of a "
    "page."
)
MEASURES = (
    "Normalized entropy is the log loss divided by the log loss of a constant prediction, the mean click rate. "
    "Calibration is the number of predicted clicks divided by the number of observed clicks. The learning rate is a "
    "multiple of the configuration’s; it applies to dense layers and tables alike. Minutes are the time of one run; "
    "other runs may have shared the machine."
)
CALIBRATION = (
    "Items are sorted by prediction and divided into twenty groups. The figure shows each group’s click rate minus its "
    "mean prediction, in percentage points, against the prediction. One line per run. Chance explains differences "
    "within the band of two standard errors, which is that of the first run."
)


def auc(comparison: Comparison) -> str:
    """What the AUC is of."""
    if found := comparison.get("left_out"):
        return f"All test pages of a left-out {found['column']} in one ranking; the mean over all of them."
    return "All items of the test split in one ranking."


def page_auc(comparison: Comparison) -> str:
    """What the page AUC is of."""
    text = "Items are ranked within their page; the AUCs of the pages are averaged."
    if found := comparison.get("left_out"):
        text += f" The mean over every {found['column']} that is left out."
    return text


def headline(comparison: Comparison) -> str:
    """The best system, and the steps from SIM over TAN to CCN; of TAN's variants the best one counts."""
    systems: Sequence[SystemEntry] = comparison["systems"]
    best, *others = ranked(systems, "auc")
    value, spread = mean(best, "auc"), error(best, "auc")
    if value is None:
        return "No system has an AUC on this test split. Are all its labels equal?"
    text = f"{best['title']} has the highest AUC, {decimal(value, 4)}"
    if found := comparison.get("left_out"):
        text = f"Where training left out the {found['column']}, {text}"
    if spread:
        text += f" ± {decimal(spread, 4)}"
        near = [str(other["title"]) for other in others if _is_near(best, other)]
        if near and not found:  # left-out values differ by more than systems do, so there only pairs can be compared
            text += f"; within two standard errors of it: {', '.join(near)}"
    text += ". "
    by_name = {str(system["name"]): system for system in systems}
    tans = [by_name[name] for name in ("tan", "tan_bounded") if name in by_name]
    if not tans or "ccn" not in by_name or "sim" not in by_name:
        return text
    titles = metric_titles(comparison)
    for metric in RANKED:
        tan = ranked(tans, metric)[0]
        ccn, middle, sim = mean(by_name["ccn"], metric), mean(tan, metric), mean(by_name["sim"], metric)
        if ccn is not None and middle is not None and sim is not None:
            text += (
                f"In {titles[metric]}, {tan['title']} is {points(middle - sim)} SIM"
                f"{_if_within_the_error(comparison, tan, by_name['sim'], metric)}, and CCN is {points(ccn - middle)} "
                f"{tan['title']}{_if_within_the_error(comparison, by_name['ccn'], tan, metric)}. "
            )
    return text


def _is_near(best: SystemEntry, other: SystemEntry) -> bool:
    """Whether two systems' AUCs are less than two standard errors of their difference apart."""
    high, low, *errors = mean(best, "auc"), mean(other, "auc"), error(best, "auc"), error(other, "auc")
    known = [value for value in errors if value is not None]
    if high is None or low is None or len(known) < len(errors):
        return False
    return high - low < 2 * hypot(*known)


def _if_within_the_error(comparison: Comparison, one: SystemEntry, other: SystemEntry, metric: str) -> str:
    """A remark on the difference of two systems whose 95% interval has 0 in it; empty if it has not, or is unknown."""
    for step in comparison.get("steps") or []:
        if (step["system"], step["to"]) == (one["name"], other["name"]):
            low, high = (versus(step, metric, end) for end in ("low", "high"))
            return " (within the error)" if low is not None and high is not None and low <= 0 <= high else ""
    return ""


def points(difference: float) -> str:
    """A difference of AUCs, in points of .01.

    >>> points(0.0041), points(-0.0012)
    ('.41 points above', '.12 points below')
    """
    return f"{decimal(abs(100 * difference), 2)} points {'above' if difference >= 0 else 'below'}"


def terms(families: Collection[str]) -> str:
    """Definitions of the words that the families' descriptions use."""
    if "contrast" in families:
        return f"{TRIGGER} {DEGREE} {CONTRAST}"
    return f"{TRIGGER} {DEGREE}" if "trigger" in families else TRIGGER


def marks(comparison: Comparison) -> str:
    """How to read the two rankings."""
    protocol, left_out = comparison["protocol"], comparison.get("left_out")
    runs = len(protocol["seeds"])
    baseline = next((s["title"] for s in comparison["systems"] if s["name"] == protocol["baseline"]), None)
    dashed = f" The dashed line marks the mean of {baseline}." if baseline else ""
    if left_out:
        return (
            f"A point is the mean over {_values(comparison)}; the bar is ± one standard error over them; the ticks are "
            f"the single runs.{dashed}"
        )
    if runs < 2:
        return "A point is the only run, so there is no standard error: it needs two." + dashed
    mean_of = f"the mean of {runs} runs"
    if protocol["dropped"]:
        mean_of += " without the best and the worst, as in the paper"
    return f"A point is {mean_of}; the bar is ± one standard error; the ticks are the single runs.{dashed}"


def tests(comparison: Comparison) -> str:
    """What the differences and p-values are."""
    others = sum(bool(system.get("versus")) for system in comparison["systems"])
    if not others:
        baseline = comparison["protocol"]["baseline"]
        return f"One point is .01 of AUC. There are no differences to {baseline}, the baseline, to report."
    if comparison.get("left_out"):
        return (
            f"One point is .01 of AUC. Differences are means over {_values(comparison)}; those of one value are "
            "between runs with the same seed. The error, the interval and p are Student’s, with the values as the "
            "sample: they cover the differences between values, and with them those between seeds and pages. p is not "
            f"corrected for the number of comparisons, {others}. “Values” is the number of left-out values that would "
            "find a difference of .1 points with p < .05 in four of five comparisons; “–” if more than a thousand "
            "would be needed, or their error is unknown."
        )
    if len(comparison["protocol"]["seeds"]) < 2:
        return "Differences are those of single runs; a standard error and a p-value need two runs per system."
    dropped = "; none is left out" if comparison["protocol"]["dropped"] else ""
    return (
        f"One point is .01 of AUC. Differences are between runs with the same seed{dropped}. p is the p-value of a "
        "two-sided t-test of these differences, whose error covers the pages of the test split too. It is not "
        f"corrected for the number of comparisons, {others}. “Seeds” is the number of runs that would find "
        "a difference of .1 points with p < .05 in four of five comparisons; “–” if no number would, because the "
        "error over the pages of the test split alone is too large."
    )


def repeated(comparison: Comparison) -> str:
    """What the number in the last column of the results is of."""
    return "values" if comparison.get("left_out") else "seeds"


def left_out_fact(comparison: Comparison) -> dict[str, str]:
    """What each run leaves out, for the facts at the top; nothing if none does."""
    if not (left_out := comparison.get("left_out")):
        return {}
    return {"each run leaves out": f"1 of {len(left_out['values'])} values of {left_out['column']}"}


def _values(comparison: Comparison) -> str:
    left_out = comparison["left_out"]
    return f"{len(left_out['values'])} left-out values of {left_out['column']}"


def order(systems: Sequence[SystemEntry]) -> str:
    """How many pairs of systems have the same order here and in the paper."""
    agreeing, pairs = agreement(systems)
    return (
        f"{agreeing} of {pairs} pairs of systems have the same order as in the paper’s Table 2. The paper’s data are "
        "different, far larger, and not public."
    )


def bounds(comparison: Comparison) -> str:
    """What the bounds are."""
    known, left_out = comparison["bounds"], comparison.get("left_out")
    text = "The synthetic world that generated these data knows each click’s probability."
    if known.get("oracle_auc") is not None:
        over = f", a mean over the {_values(comparison)}" if left_out else ""
        text += (
            f" The oracle ranks by this probability. Its AUC is {decimal(known['oracle_auc'], 4)}{over}, not 1, "
            "because clicks are random."
        )
    if known.get("attainable_auc") is not None:
        text += (
            " The user’s intent and the page clickiness (how click-prone the whole page is) appear in no log. Averaged "
            f"over both, the probability gives an AUC of {decimal(known['attainable_auc'], 4)}, the highest that a "
            "model can attain"
        )
        text += f" that knows all about the {left_out['column']}: none that left it out does." if left_out else "."
    return text


def degrees(comparison: Comparison) -> str:
    """What the distributions are of."""
    after = "the test split"
    if left_out := comparison.get("left_out"):
        first = left_out["values"][0]["name"]
        after = f"the test pages of {left_out['column']} {first}, which this run left out"
    return (
        "Distribution of the collaborative degree, for the first run of each system that has one. Both distributions "
        "are scaled to the same area. “Before training” shows the first pages of the validation split, “after” "
        f"{after}. The number is the share of pairs of a clicked and an unclicked item in which the clicked item has "
        "the higher degree: .5 means that the distributions do not differ; below .5, clicked items have the lower "
        "degrees."
    )


def learning(comparison: Comparison) -> str:
    """What the curves are."""
    same = "with the same seed" + " and left-out value" * ("left_out" in comparison)
    return (
        "AUC on the validation split; cross entropy of training, smoothed over neighbouring steps; and the difference "
        f"of this cross entropy to the baseline’s run {same}, which reads the same pages at the same step: below 0, "
        "the system fits these pages better. One line per run. Grey: the first run of every other system."
    )


def page_sizes(comparison: Comparison, classes: Sequence[tuple[float, float, float]]) -> str:
    """The classes, and the number of pages in each; runs that left something out have different ones."""
    most = "up to " * ("left_out" in comparison)
    texts = [
        f"{f'{low:g} to {high:g} items' if high < 1e6 else f'{low:g} or more'}, {most}{count(pages)} pages"
        for low, high, pages in classes
    ]
    return f"Page sizes: {'; '.join(texts)}. One line per run. Grey: the first run of every other system."
