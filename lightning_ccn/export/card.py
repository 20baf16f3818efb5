"""The model card of a package."""

from __future__ import annotations

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.evaluation.metrics import ORDER_METRICS
from lightning_ccn.serving.manifest import Manifest

SHOWN = ("auc", "page_gauc", "logloss", "calibration", *ORDER_METRICS)


def card(manifest: Manifest, dataset: Dataset, data_licence: str) -> str:
    """README.md of a package: what the model is, of which data, and how well it did on them."""
    train, tables = dataset.splits["train"], ", ".join(f"{n} {t.rows:,}" for n, t in manifest.tables.items())
    what = "Probabilities of a click and of an order" if manifest.gives_orders else "Click probabilities"
    lines = [
        f"# {manifest.system}, exported {manifest.exported}",
        "",
        f"{what} of candidates after a trigger, by lightning_ccn {manifest.version}. Serve this folder "
        "with `ccn serve`, or in Python with `lightning_ccn.serving.Scorer`; `request.json` says what a request is.",
        "",
        "| | |",
        "|---|---|",
        f"| checkpoint | digest {manifest.checkpoint[:16]} |",
        f"| trained on | {train.pages:,} page views with {train.items:,} items, {train.clicks:,} of them clicked |",
        f"| rows of tables | {tables}; stored as {manifest.table_dtype} |",
        f"| behaviours read | short {manifest.short_length}"
        + (
            f", long {manifest.long_length} of each category"
            if manifest.reads_long
            else "; the long sequence is not read"
        )
        + (", with how long ago each was" if manifest.reads_gaps else "")
        + " |",
        f"| licence of the data | {data_licence} |",
        "",
    ]
    if manifest.measured:
        lines += _measured(manifest)
    return "\n".join(lines)


def _measured(manifest: Manifest) -> list[str]:
    found = manifest.measured
    lines = [
        f"On {found['pages']:,} pages of the {found['split']} split, the graph's probabilities differ from the "
        f"model's by {found['largest_difference']:.1g} at most.",
        "",
    ]
    kinds = [kind for kind in ("fp32", manifest.table_dtype) if kind in found]
    kinds = list(dict.fromkeys(kinds))
    names = [name for name in SHOWN if all(name in found[kind] for kind in kinds)]
    if names:
        lines += [f"| tables as | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
        lines += [f"| {kind} | {' | '.join(f'{found[kind][name]:.5f}' for name in names)} |" for kind in kinds]
        lines.append("")
    return lines
