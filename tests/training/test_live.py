"""Numbers of live parameters: whole ones, and those that FSDP2 has cut over two ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from relex_merge.engine.sample_memory import Wanted
from relex_merge.training.live import live_numbers

SCRIPT = """
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

from relex_merge.engine.sample_memory import Wanted
from relex_merge.training.live import from_first_rank, live_numbers

distributed.init_process_group("gloo")
rank = distributed.get_rank()
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 1))  # rows that two ranks cannot share evenly
model[1].to(torch.bfloat16)
whole = {name: p.detach().clone() for name, p in model.named_parameters()}
columns = nn.Parameter(torch.randn(4, 6))
whole["columns"] = columns.detach().clone()
mesh = init_device_mesh("cpu", (2,))
fully_shard(model[0], mesh=mesh)
fully_shard(model[1], mesh=mesh)
model.columns = nn.Parameter(distribute_tensor(columns.detach(), mesh, [Shard(1)]))
assert rank == 0 or model[1].weight.to_local().numel() == 0
wanted = []
for name, weight in whole.items():
    n = weight.numel()
    wanted.append(Wanted(name, tuple(weight.shape), ((0, 1), (n // 3, n))))
wanted = from_first_rank(wanted if rank == 0 else None)
found = live_numbers(model, [*wanted, Wanted("absent", (3,), ((0, 3),))])
assert set(found) == set(whole)
for one in wanted:
    flat = whole[one.name].reshape(-1)
    expected = torch.cat([flat[a:b] for a, b in one.ranges])
    assert torch.equal(found[one.name].to(flat.dtype), expected), one.name
distributed.barrier()
distributed.destroy_process_group()
"""


def test_whole_parameters_under_their_stored_names() -> None:
    model = torch.nn.Module()
    model.module = torch.nn.Linear(3, 2)  # as DistributedDataParallel wraps it
    wanted = [
        Wanted("weight", (2, 3), ((1, 3), (5, 6))),
        Wanted("bias", (3,), ((0, 1),)),  # another shape: not the stored one
        Wanted("other", (2,), ((0, 2),)),
    ]
    found = live_numbers(model, wanted)
    flat = model.module.weight.detach().reshape(-1)
    assert list(found) == ["weight"]
    assert torch.equal(found["weight"], flat[[1, 2, 5]])


def test_every_rank_of_fsdp2_brings_its_part(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    done = subprocess.run(
        [*launcher, script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
