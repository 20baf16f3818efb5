"""The report's texts on how its numbers were made: runs, search and sensitivity."""

from __future__ import annotations

from lightning_ccn.studies.html_report.captions import Comparison


def sensitivity(comparison: Comparison) -> str:
    """What was varied, and in how many runs."""
    runs = max(len(point["runs"]) for points in comparison["sensitivity"].values() for point in points)
    point = "a point is one run" if runs == 1 else f"a point is the mean of {runs} runs"
    return (
        "AUC of the test split. One option is varied at a time, the others stay as configured. Trained on "
        f"{_searched_on(comparison)}; {point}."
    )


def search(comparison: Comparison) -> str:
    """How the settings were chosen."""
    return (
        f"AUC on the validation split after training on {_searched_on(comparison)}, with seeds that no reported run "
        "has. Every system has the same number of trials, and the first is its configuration as it is. A trial is "
        f"ended early if it is below the median of the system’s others at the same step. {_finals(comparison)} "
        "The reported runs of a system use the settings of the chosen trial. The test split was not used."
    ) + " Trials use the pages of all values, also of those that a run leaves out." * ("left_out" in comparison)


def _finals(comparison: Comparison) -> str:
    """What became of the best trials."""
    finalists = comparison["protocol"].get("finalists", 1)
    if finalists == 1:
        return "The best one is chosen."
    return f"The {finalists} best run with two more seeds each, and the best mean chooses."


def not_searched(comparison: Comparison) -> str:
    """Where the settings come from if this comparison did not search them."""
    earlier = comparison["protocol"].get("settings_from")
    return f"taken from {earlier}." if earlier else "every system was trained as configured."


def method(comparison: Comparison) -> list[str]:
    """The paragraphs on the method."""
    protocol, git = comparison["protocol"], comparison.get("git") or {}
    seeds = ", ".join(str(seed) for seed in protocol["seeds"])
    errors = "The standard error is that of the mean over runs."
    if "left_out" in comparison:
        errors = "The standard error is that of the mean over left-out values."
    if protocol["dropped"]:
        errors = (
            "The standard error is that of a trimmed mean, from the winsorised variance. The variance of the remaining "
            "runs would be too small, because the best and the worst run are left out."
        )
    versions = ", ".join(f"{name} {number}" for name, number in comparison["versions"].items())
    if git.get("commit"):
        versions += f", commit {git['commit'][:10]}" + " with uncommitted changes" * bool(git.get("changed"))
    return [
        f"{_same_pages(comparison)} What the search changes for a system is in the table of the search. "
        f"{_paired(comparison, seeds)} Nothing is chosen by the test split.",
        errors,
        f"The training times of all runs add up to {comparison['minutes']:,.1f} minutes. The file compare.json beside "
        "this one has unrounded numbers, the metrics of every run, and its learning curves.",
        f"{versions}.",
    ]


def _same_pages(comparison: Comparison) -> str:
    if left_out := comparison.get("left_out"):
        return (
            f"All systems read the same pages: of each run, the training pages without one {left_out['column']}, and "
            "its test pages, once."
        )
    return "All systems read the same pages. Each finished run reads the test split once."


def _paired(comparison: Comparison, seeds: str) -> str:
    draws = "A seed draws the initial weights and the order of the pages, so runs with the same"
    if left_out := comparison.get("left_out"):
        return (
            f"Each is trained once for every left-out {left_out['column']} and seed: {seeds}. {draws} seed and "
            "left-out value are paired. The error of a difference takes the values as the sample."
        )
    return (
        f"Each is trained once per seed: {seeds}. {draws} seed are paired. The error of a difference covers the seeds "
        "and the pages of the test split."
    )


def _searched_on(comparison: Comparison) -> str:
    share = comparison["protocol"].get("search_share", 1.0)
    if share == 1:
        return "all training data" if "left_out" in comparison else "the same training data"
    return f"{100 * share:g}% of the training data"
