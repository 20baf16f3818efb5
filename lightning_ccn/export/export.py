"""From a sharded checkpoint to a package for serving, checked against the model on pages of a split."""

from __future__ import annotations

import copy
import datetime
import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lightning_ccn import __version__
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.new_folder import OWNER, NewFolder, naming
from lightning_ccn.errors import OptionError
from lightning_ccn.export.card import card
from lightning_ccn.export.compare_packages import PackageComparison, compare_packages
from lightning_ccn.export.examples import write_examples
from lightning_ccn.export.graph import ServingGraph, example_inputs, quiet, trace, write_onnx
from lightning_ccn.export.item_vectors import write_item_vectors
from lightning_ccn.export.measure import MeasuredPages, PageScores
from lightning_ccn.export.one_page import GivenEmbedding, GivenWide
from lightning_ccn.export.package_files import (
    feature_entries,
    file_entries,
    number_entries,
    request_schema,
    write_ids,
    write_items,
    write_tables,
    write_vectors,
)
from lightning_ccn.export.rebuild import Model, Rebuilt, rebuild, replace_module
from lightning_ccn.export.stored_lookup import StoredBags
from lightning_ccn.export.table_files import StoredDtype, shrink
from lightning_ccn.nn.crosses import COPIES
from lightning_ccn.serving import Scorer
from lightning_ccn.serving.deploy import write_deployment
from lightning_ccn.serving.manifest import FORMAT, Manifest, TableEntry
from lightning_ccn.serving.package import COMPILED, GRAPH, MANIFEST, REQUEST, Package, StoredTable
from lightning_ccn.sharding.manifest import MANIFEST as CHECKPOINT

OTHERWISE = "remove it, or name another with --output"
CARD = "README.md"
ALIKE = 1e-5  # how far the graph's probabilities may be from the model's; rounding makes up to 1e-6


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        manifest: What package.json says.
        comparison: What the package changes against an older one; None if none was given.
    """

    manifest: Manifest
    comparison: PackageComparison | None


def export(
    checkpoint: Path,
    dataset: Dataset,
    output: Path,
    table_dtype: StoredDtype = "fp32",
    compiled: bool = True,
    split: Literal["train", "validation", "test"] = "test",
    pages: int = 2000,
    data_licence: str = "not stated",
    vectors: bool = False,
    against: Path | None = None,
) -> Exported:
    """Writes a package.

    Args:
        checkpoint: A complete checkpoint, of any number of ranks.
        dataset: The data whose items and vocabularies the package has.
        output: Folder of the package; it appears when it is complete.
        table_dtype: Type of the tables' rows: `fp16` takes half the space of `fp32`, `int8` a quarter.
        compiled: Whether AOTInductor compiles the graph too, for this kind of CPU; needs a C++ compiler.
        split: Split on which the package is compared with the model.
        pages: How many of its pages; 0 leaves the comparison out.
        data_licence: The licence of the data, for the model card.
        vectors: Whether to write the embeddings of all items too, as Parquet with the log's own ids.
        against: An older package, with which the new one is compared on the same pages.

    Returns:
        What was written, and what it changes.

    Raises:
        OptionError: The system cannot be exported, or the package does not say what the model says.
        DataError, ShardingError: The data do not fit the checkpoint, the checkpoint is not whole, or the folder is
            taken.
    """
    if pages < 0:
        raise OptionError(f"--pages is {pages}: it must be 0 or more")
    if compiled and shutil.which("g++") is None and shutil.which("clang++") is None:
        raise OptionError("--compiled: there is no C++ compiler here; install g++, or give --compiled false")
    if against is not None:
        Package(against)  # refused before any work
        if not pages:
            raise OptionError("--against: packages are compared on pages, so give --pages 1 or more")
    if pages and not dataset.splits[split].pages:
        raise OptionError(f"--split {split}: has no page views in {dataset.folder}; name another, or give --pages 0")
    rebuilt = rebuild(checkpoint, dataset)
    manifest = _manifest(rebuilt, checkpoint, dataset)
    chosen = MeasuredPages(dataset, split, pages, manifest) if pages else None
    new = NewFolder(output, OTHERWISE)
    try:
        with naming(output):
            manifest = replace(manifest, tables=_write(rebuilt, manifest, checkpoint, dataset, new.part, compiled))
            manifest = _measure(rebuilt, chosen, new.part, manifest, table_dtype)
            comparison = None if against is None else compare_packages(against, new.part, dataset, split, pages)
            if chosen is not None:
                write_examples(new.part, chosen, dataset, manifest)
            if vectors:
                write_item_vectors(new.part, dataset)
            write_deployment(new.part)
            (new.part / CARD).write_text(card(manifest, dataset, data_licence))
            files = file_entries(new.part, (OWNER, MANIFEST))
            manifest = replace(manifest, files=files)
            (new.part / MANIFEST).write_text(manifest.to_json())
            new.finish()
    except BaseException:  # Ctrl-C, too: nothing half-written stays
        new.discard()
        raise
    return Exported(manifest, comparison)


def _write(
    rebuilt: Rebuilt, manifest: Manifest, checkpoint: Path, dataset: Dataset, folder: Path, compiled: bool
) -> dict[str, TableEntry]:
    """Writes all files of a float32 package but the card and the manifest; returns what the latter says of tables."""
    write_tables(rebuilt, checkpoint, folder)
    write_items(dataset, folder)
    write_vectors(dataset, folder)
    tables = write_ids(dataset, folder)
    (folder / "schema.yaml").write_text(dataset.schema.to_yaml())
    (folder / REQUEST).write_text(request_schema(manifest, tables))
    example = example_inputs(rebuilt.embedding, rebuilt.crosses is not None, manifest.reads_gaps)
    program = trace(ServingGraph(rebuilt.model), example)
    write_onnx(program, example, folder / GRAPH)
    if compiled:
        from lightning_ccn.serving.aot_inductor import compile_graph  # takes seconds to import

        with quiet():
            compile_graph(program, folder / COMPILED)
    return tables


def _manifest(rebuilt: Rebuilt, checkpoint: Path, dataset: Dataset) -> Manifest:
    """What is known of a package before anything is written."""
    schema = dataset.schema
    user, item = feature_entries(rebuilt, schema)
    return Manifest(
        format=FORMAT,
        version=__version__,
        system=type(rebuilt.system).__name__,
        checkpoint=hashlib.sha256((checkpoint / CHECKPOINT).read_bytes()).hexdigest(),
        exported=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        table_dtype="fp32",
        short_length=rebuilt.reading["short_length"],
        long_length=rebuilt.reading["long_length"],
        reads_long=rebuilt.system.reads_long,
        reads_gaps=rebuilt.system.reads_gaps,
        gives_orders=rebuilt.model.order_head is not None,
        user=user,
        item=item,
        numbers=number_entries(dataset, schema.numbers),
        page_numbers=number_entries(dataset, schema.page_numbers),
        same_as_trigger=rebuilt.embedding.same_as_trigger,  # a system may compare more than the schema says
        ratio_to_trigger=schema.ratio_to_trigger,
        category=schema.category,
        vectors=tuple(schema.vectors),
        crosses=None if rebuilt.crosses is None else rebuilt.crosses.rows,
        tables={},
        files={},
        measured={},
    )


def _measure(
    rebuilt: Rebuilt, chosen: MeasuredPages | None, folder: Path, manifest: Manifest, table_dtype: StoredDtype
) -> Manifest:
    """Compares the package with the model, gives its tables their type, and measures what that changes."""
    (folder / MANIFEST).write_text(manifest.to_json())
    measured: dict[str, Any] = {}
    if chosen is not None:
        by_graph = chosen.by_scorer(Scorer(folder))
        with quiet():
            by_model = chosen.by_model(looking_up(rebuilt, Package(folder)))
        measured = {"split": chosen.split, "pages": len(by_graph.lengths), **_compared(by_graph, by_model)}
        measured["fp32"] = by_graph.metrics()
    for name in {feature.stored for feature in (*manifest.user, *manifest.item)}:
        shrink(folder / f"tables/{name}.values.npy", folder / f"tables/{name}.scale.npy", table_dtype)
    manifest = replace(manifest, table_dtype=table_dtype)
    (folder / MANIFEST).write_text(manifest.to_json())
    if chosen is not None and table_dtype != "fp32":
        measured[table_dtype] = chosen.by_scorer(Scorer(folder)).metrics()
    return replace(manifest, measured=measured)


def _compared(by_graph: PageScores, by_model: PageScores) -> dict[str, float]:
    pairs = [("", by_graph.probability, by_model.probability)]
    if by_graph.order is not None and by_model.order is not None:
        pairs.append((" of an order", by_graph.order, by_model.order))
    largest = []
    for what, of_graph, of_model in pairs:
        difference = np.abs(of_graph - of_model)
        largest.append(float(difference.max(initial=0.0)))
        if not largest[-1] <= ALIKE:  # also if it is NaN
            at = int(np.argmax(np.nan_to_num(difference, nan=np.inf)))
            page = by_graph.page_id[np.searchsorted(np.cumsum(by_graph.lengths), at, side="right")]
            raise OptionError(
                f"the package is not written: its graph gives an item of page_id {page} the probability{what} "
                f"{of_graph[at]:.6g}, and the model {of_model[at]:.6g}; forward of the system must score a target from "
                "the page and the target alone, and read what OnePage has"
            )
    return {"largest_difference": max(largest)}


def looking_up(rebuilt: Rebuilt, package: Package) -> Model:
    """The model as in training, with lookups in the package's files."""
    entries = package.manifest
    users, items = rebuilt.embedding.users, rebuilt.embedding.items
    users.collection = StoredBags({f.name: package.tables[f.stored] for f in entries.user})
    items.collection = StoredBags({f.name: package.tables[f.stored] for f in entries.item})
    users.kernel = items.kernel = "bag"  # whatever the kernel of the training
    if rebuilt.crosses is not None:
        assert package.crosses is not None
        weights = np.broadcast_to(package.crosses[:, None], (len(package.crosses), COPIES))
        rebuilt.crosses.table = StoredBags({"crosses": StoredTable(weights)})
    model = copy.deepcopy(rebuilt.model)
    for name, module in list(model.named_modules()):
        if isinstance(module, GivenEmbedding):
            replace_module(model, name, rebuilt.embedding)
        elif isinstance(module, GivenWide):
            assert rebuilt.crosses is not None
            replace_module(model, name, rebuilt.crosses)
    return model
