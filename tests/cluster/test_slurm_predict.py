"""`make predict-multinode` on a real SLURM: what ends the job does not end the prediction."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.new_folder import part_of
from tests.cluster.slurm_cluster import Cluster, hold
from tests.export.checkpoints import train

pytestmark = pytest.mark.slurm
PAGES = 24  # in global batches of 2, whose scores are in parts of 2 batches


def test_a_prediction_goes_on_after_a_dead_rank_and_a_requeue(
    cluster: Cluster, dataset: Path, desk: Path, tmp_path: Path
) -> None:
    checkpoint, out = train(dataset, tmp_path / "trained", "ccn"), tmp_path / "scores"
    hold(desk, 5)
    pause = f"--trainer.callbacks=tests.cluster.pause_at_batches.PauseAtBatches --trainer.callbacks.folder={desk}/hold"
    options = f"ARGS={pause} --trainer.callbacks.batches=2 --runs {desk}/runs --data.batch_pages 2"
    words = [f"CKPT={checkpoint}", f"DATA={dataset}", f"OUT={out}", "NODES=2", "GPUS=0", options]
    run = cluster.submitted(cluster.make("predict-multinode", *words), desk)
    run.until_held(5)
    whole = sorted(path.name for path in part_of(out).glob("*.parquet"))
    assert whole == [f"part-{part:05d}-{rank:05d}.parquet" for part in (0, 1) for rank in (0, 1)]
    hold(desk, 3)
    run.signal("KILL", rank=1)
    run.let_go(5)
    run.until_log_has("failed: srun ended with")
    run.until_held(3)  # of the second start: batch 7 of all
    cluster.ask("scontrol", "requeue", run.id)
    run.let_go(3)
    run.until_state("COMPLETED")
    said = (run.job / "rank-0.log").read_text()
    assert "has the scores of 4 batches; the rest follows" in said, run.everything()
    scores = pq.read_table(out).to_pydict()
    pages = pq.read_table(dataset / "test", columns=["page_id", "items"]).to_pylist()
    expected = sorted((page["page_id"], item) for page in pages for item in page["items"])
    assert sorted(zip(scores["page_id"], scores["item_id"], strict=True)) == expected
    # of the first start, batches 0 to 3 were kept; the others were scored again
    begun = [json.loads(line) for line in (desk / "hold" / "scored.0").read_text().splitlines()]
    starts = [at for at, line in enumerate(begun) if line["batch"] == 0]
    assert begun[starts[1]]["pages"] == begun[4]["pages"]
    assert len({page for line in begun for page in line["pages"]}) == PAGES // 2
