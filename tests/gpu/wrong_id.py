"""`ccn fit` meets an id that is not in its table: `python -m tests.gpu.wrong_id ACCELERATOR ID FOLDER`.

It is a process of its own, since a fault of a GPU spoils all that its process does after it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

import lightning as L

from lightning_ccn.cli import main
from lightning_ccn.sharding import TorchRecStrategy
from tests.gpu.bare_trainer import bare_trainer
from tests.sharding.dlrm import WithId
from tests.sharding.runs import make_model


def fit(args: list[str]) -> int:
    """In place of `ccn fit`: two steps of a model whose first id is the given one."""
    accelerator, wrong, folder = args
    trainer = bare_trainer(Path(folder), TorchRecStrategy(), accelerator, 1, 2, L.Callback())
    trainer.fit(make_model(), WithId(2, int(wrong)))
    return 0


if __name__ == "__main__":
    with patch("lightning_ccn.cli._function", lambda name: fit):
        sys.exit(main(["fit", *sys.argv[1:]]))
