"""Real RLVR runs in miniature, trained by the demo's own code and kept in a cache folder.

    python -m tests.benchmarks.miniature [--cache DIR] [--seeds 0,1] [--workers 2] [--lora]

A run is named by what distinguishes it: task, learning rate, warm-up, seed, and whether an adapter
was trained instead of the whole model. The runs of one task and seed share one base model. A
finished run is never trained again, and files appear whole or not at all, so the command may be
interrupted and repeated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from relex_merge.demo.base import train_base
from relex_merge.demo.grpo import Grpo
from relex_merge.demo.lora import new_adapter
from relex_merge.demo.model import build_tokenizer, load_model, one_thread, save_model
from relex_merge.demo.settings import BAD, GOOD, Lora, Settings
from relex_merge.demo.tasks import load_task, split_prompts

STEPS, OBSERVED, WARM_UP = 200, 30, 20
KEPT = (*range(1, 61), *range(70, STEPS + 1, 10))
"""Steps whose weights are kept; 40 MB a run."""

TASKS = ("addition", "sorting")
RATES = {
    "many": (1e-6, 6e-6, 3e-5),
    "few": (3e-5, 1e-4, 5e-4),
}
"""Learning rates by rollouts a step: "many" as the demo, "few" as the demo with ``--bad``."""
LORA_RATES = {"many": (4e-5,), "few": (2e-4, 1e-3)}
SEEDS = (0, 1)
CACHE = Path(tempfile.gettempdir()) / "calibration"


@dataclass(frozen=True)
class Key:
    """One run; rollouts: a key of ``RATES``; lora: an adapter is trained."""

    task: str
    rate: float
    warm_up: bool
    seed: int
    rollouts: str = "many"
    lora: bool = False

    def __str__(self) -> str:
        kind = "LoRA" if self.lora else "warm-up" if self.warm_up else "plain"
        few = " few" if self.rollouts == "few" else ""
        return f"{self.task} {self.rate:g}{few} {kind} seed {self.seed}"

    @property
    def file_name(self) -> str:
        return str(self).replace(" ", "_") + ".safetensors"

    @property
    def settings(self) -> Settings:
        """The demo's settings with this learning rate."""
        usual = BAD if self.rollouts == "few" else GOOD
        rlvr = replace(usual, lr=self.rate, warm_up=WARM_UP if self.warm_up else 0)
        return Settings(
            task=self.task,
            seed=self.seed,
            steps=STEPS,
            observe=OBSERVED,
            rlvr=rlvr,
            lora=Lora() if self.lora else None,
        )


def keys(seeds: Sequence[int] = SEEDS) -> list[Key]:
    """Every combination, those of one seed together."""
    regimes = [(rollouts, rate) for rollouts, rates in RATES.items() for rate in rates]
    grid = itertools.product(seeds, regimes, TASKS, (False, True))
    return [
        Key(task, rate, warm_up, seed, rollouts) for seed, (rollouts, rate), task, warm_up in grid
    ]


def plain_keys(seeds: Sequence[int]) -> list[Key]:
    """Every run without warm-up, of whole models."""
    return [key for key in keys(seeds) if not key.warm_up]


def lora_keys(seeds: Sequence[int]) -> list[Key]:
    """Every run of adapters."""
    regimes = [(rollouts, rate) for rollouts, rates in LORA_RATES.items() for rate in rates]
    grid = itertools.product(seeds, regimes, TASKS)
    return [Key(task, rate, False, seed, few, lora=True) for seed, (few, rate), task in grid]


@dataclass(frozen=True)
class MiniatureRun:
    """What is kept of a run.

    steps (S,) ascending; reward (STEPS,) mean reward of each step's rollouts; weights: name of what
    was trained → float32 (S + 1, d), before training in row 0; shapes: name → tensor shape.
    """

    key: Key
    steps: np.ndarray[Any, np.dtype[np.float64]]
    reward: np.ndarray[Any, np.dtype[np.float64]]
    weights: dict[str, torch.Tensor]
    shapes: dict[str, tuple[int, ...]]


def base_folder(key: Key, cache: Path) -> Path:
    return cache / f"base_{key.task}_{key.seed}"


def train_one_base(key: Key, cache: Path) -> None:
    """Train the base model of ``key`` unless it is there."""
    folder = base_folder(key, cache)
    if folder.is_dir():
        return
    task = load_task(key.task)
    tokenizer = build_tokenizer(task)
    prompts = split_prompts(task, key.settings.stream("problems")).train
    with one_thread():
        save_model(train_base(task, tokenizer, prompts, key.settings), tokenizer, folder)


def train_one_run(key: Key, cache: Path) -> float:
    """Train ``key`` on its base and keep it; returns processor seconds, 0 if it was there."""
    file = cache / key.file_name
    if file.is_file():
        return 0.0
    start = time.process_time()
    task = load_task(key.task)
    tokenizer = build_tokenizer(task)
    prompts = split_prompts(task, key.settings.stream("problems")).train
    with one_thread():
        model = load_model(base_folder(key, cache))
        if key.settings.lora is not None:
            model = new_adapter(model, key.settings.lora, key.settings.stream("adapter"))
        trainer = Grpo(model, tokenizer, task, prompts, key.settings)
        names = {name: p for name, p in model.named_parameters() if p.requires_grad}
        rows = {name: [p.detach().flatten().clone()] for name, p in names.items()}
        reward = []
        for step in range(1, STEPS + 1):
            reward.append(trainer.step())
            if step in KEPT:
                for name, parameter in names.items():
                    rows[name].append(parameter.detach().flatten().clone())
    about = {"reward": reward, "shapes": {name: list(p.shape) for name, p in names.items()}}
    partial = file.with_suffix(".partial")
    save_file(
        {name: torch.stack(row) for name, row in rows.items()}, partial, {"run": json.dumps(about)}
    )
    partial.replace(file)
    return time.process_time() - start


def load_run(key: Key, cache: Path) -> MiniatureRun:
    """The kept run of ``key``."""
    with safe_open(cache / key.file_name, framework="pt") as file:
        about = json.loads(file.metadata()["run"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    shapes = {name: tuple(shape) for name, shape in about["shapes"].items()}
    return MiniatureRun(
        key, np.asarray(KEPT, dtype=np.float64), np.asarray(about["reward"]), weights, shapes
    )


def make(wanted: Sequence[Key], cache: Path, workers: int) -> None:
    """Train what is missing of ``wanted``, ``workers`` at a time, telling of each."""
    cache.mkdir(parents=True, exist_ok=True)
    missing = [key for key in wanted if not (cache / key.file_name).is_file()]
    bases = {(key.task, key.seed): key for key in missing}.values()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        pending = {(k.task, k.seed): pool.submit(train_one_base, k, cache) for k in bases}
        for key in missing:
            pending[key.task, key.seed].result()
        done = [(key, pool.submit(train_one_run, key, cache)) for key in missing]
        for key, future in done:
            print(f"{key}: {future.result():.0f} CPU s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lora", action="store_true", help="adapters in place of whole models")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    wanted = (lora_keys if options.lora else keys)(seeds)
    make(wanted, options.cache, options.workers)


if __name__ == "__main__":
    main()
