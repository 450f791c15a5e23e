"""Runs whose checkpoints torch itself wrote in shards, in two and in three processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from relex_merge.checkpoints.sharded import Sharded, find_sharded
from tests.support.adapters import Adapters, make_adapters
from tests.support.models import (
    Series,
    State,
    make_config,
    make_state,
    trained,
    write_model,
    write_tokenizer,
)

STEPS = (5, 10, 15)
LAST = STEPS[-1]
RANKS = Path(__file__).resolve().with_name("rank_processes.py")
# All that is written of the last step, in the layouts of verl, then the others.
OF_VERL = (
    *("fsdp2-2", "fsdp2-3", "fsdp1-2", "fsdp1-3", "sharded-2", "sharded-3"),
    *("hsdp", "replicated", "copies", "plain", "columns", "alone"),
)
OF_OTHERS = (
    *("trainer-2", "trainer-3", "trainer1-2", "trainer1-3", "dcp-2", "dcp-3"),
    *("hf-2", "hf-3", "full"),
)


@dataclass(frozen=True)
class ShardedRuns:
    """What was written.

    Attributes:
        root: holds a folder for each layout.
        series: the same weights as safetensors: the base (a model with a tokenizer), and a state
            for each step.
        adapters: the same adapters as PEFT saves them.
    """

    root: Path
    series: Series
    adapters: Adapters

    def checkpoint(self, layout: str, step: int = LAST) -> Path:
        """The folder with the shards of a step."""
        (folder,) = (
            p
            for p in (self.root / layout).iterdir()
            if p.name.rpartition("_")[2].rpartition("-")[2] == str(step)
        )
        return folder / "actor" if (folder / "actor").is_dir() else folder

    def sharded(self, layout: str, step: int = LAST) -> Sharded:
        """The shards of a step."""
        found = find_sharded(self.checkpoint(layout, step))
        assert found is not None
        return found

    def state(self, step: int = LAST) -> State:
        """The weights of a step."""
        return self.series.states[STEPS.index(step)]

    def copy(self, layout: str, place: Path) -> Path:
        """A run that a test may change."""
        return Path(shutil.copytree(self.root / layout, place))


def make_runs(root: Path) -> ShardedRuns:
    """Write all layouts; torch is imported by one process, from which the ranks are forked."""
    config = make_config()
    base = make_state(config)
    states = trained(base, STEPS)
    folder = write_model(root / "base", config, base, tokenizer=True)
    adapters = make_adapters(root / "peft", steps=STEPS)
    for name in ("states", "adapters"):
        (root / name).mkdir()
    for step, state in zip((0, *STEPS), (base, *states), strict=True):
        save_file(state, root / "states" / f"{step}.safetensors")
    for step, place in zip(STEPS, adapters.folders, strict=True):
        save_file(_in_memory(place), root / "adapters" / f"{step}.safetensors")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, str(RANKS), str(root)], check=True, env=environment)
    for actor in root.glob("*/global_step_*/actor"):
        config.save_pretrained(actor / "huggingface")
        write_tokenizer(actor / "huggingface", "{{ messages }}")
    for step, place in zip(STEPS, adapters.folders, strict=True):
        said = json.loads((place / "adapter_config.json").read_text())
        meta = {key: said[key] for key in ("r", "lora_alpha", "task_type")}
        actor = root / "lora" / f"global_step_{step}" / "actor"
        (actor / "lora_train_meta.json").write_text(json.dumps(meta))
    series = Series(folder, (), STEPS, base, tuple(states))
    return ShardedRuns(root, series, adapters)


def _in_memory(adapter: Path) -> dict[str, torch.Tensor]:
    """An adapter's tensors by their names in a model, which has the adapter's name in them."""
    saved: dict[str, Any] = load_file(adapter / "adapter_model.safetensors")
    return {n.replace(".weight", ".default.weight"): t for n, t in saved.items()}
