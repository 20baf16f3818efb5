"""Frozen vectors of items: whether each file is what the schema says, and how many items have one."""

from __future__ import annotations

from dataclasses import dataclass, field

from lightning_ccn.data.item_vectors import FOLDER, in_parts, open_vector_file, vector_file, vector_problems
from lightning_ccn.data.places import Place
from lightning_ccn.data.schema import Schema
from lightning_ccn.errors import DataError


@dataclass
class VectorsCheck:
    """What `check_vectors` found.

    Attributes:
        errors: By name of the vectors, messages with the number of rows that each is about.
        warnings: One line per file that no schema names.
        notes: One line per name of which some items have no vector.
    """

    errors: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_vectors(folder: Place, schema: Schema) -> VectorsCheck:
    """Reads the vectors of a dataset folder; memory: some rows of one file."""
    found = VectorsCheck()
    for name in schema.vectors:
        path = vector_file(folder, name)
        try:
            vectors = open_vector_file(folder, schema, name)
        except DataError as error:
            found.errors[name] = [(str(error), 1)]
            continue
        if problems := list(vector_problems(vectors, path)):
            found.errors[name] = problems
        elif lacking := sum(int((~part.any(1)).sum()) for _, part in in_parts(vectors)) - 1:
            found.notes.append(f"vectors {name}: {lacking:,} of {len(vectors) - 1:,} items have none")
    known = [vector_file(folder, name) for name in schema.vectors]
    there: list[Place] = [*(folder / FOLDER).glob("*.npy")]
    for path in sorted(there, key=str):
        if path not in known:
            found.warnings.append(f"{path}: not read, because schema.yaml has no vectors '{path.stem}'")
    return found
