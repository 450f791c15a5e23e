"""``TrajectoryCallback`` on two ranks: the first does the work, and both stop at the same step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.training_runs import write_base

SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from relex_merge import TrajectoryCallback
from tests.support.training_runs import make_trainer

base, output = map(Path, sys.argv[1:])
trainer = make_trainer(base, output, max_steps=8, ddp_backend="gloo")
rule = lambda history: history[-1].checkpoints == 3
callback = TrajectoryCallback(60, stop_when=rule).attach(trainer)
trainer.train()
found = {"stopped_at": trainer.state.global_step, "figures": len(callback.history)}
(output / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found))
# Gloo's threads must end before the interpreter does: else the process may abort on its way out.
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


def test_rank_0_does_the_work_and_all_ranks_stop_together(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    done = subprocess.run(
        [*launcher, script, base, tmp_path / "run"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / "run" / f"rank-{r}.json").read_text()) for r in (0, 1)]
    assert ranks == [{"stopped_at": 3, "figures": 2}, {"stopped_at": 3, "figures": 0}]
    assert len(list((tmp_path / "run" / "relex_series").glob("step_*"))) == 3
