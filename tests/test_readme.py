"""The README's program runs as it stands, and its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_program_runs_on_two_ranks_in_sixty_lines_or_fewer(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(program.splitlines()) <= 60
    (tmp_path / "clicks.py").write_text(program)
    own = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK")
    environment = {k: v for k, v in os.environ.items() if k not in own} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "clicks.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "`Trainer.fit` stopped: `max_epochs=1` reached." in done.stderr
    assert list(tmp_path.rglob("*.ckpt")), "no checkpoint was written"


def test_every_file_that_the_readme_names_is_there() -> None:
    named = re.findall(r"`?((?:conf|docs|tests|slurm|benchmarks)/[\w/.-]*\w)`?", README)
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []
