"""A hundred checkpoints in shards where a process may open 64 files."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from tests.endurance.campaign import Bench, Campaign, Trial
from tests.fake_hub.fixtures import emptied_hub
from tests.support.models import make_series, write_recipe
from tests.support.outputs import contents
from tests.support.run_modes import SHARD, publish, write
from tests.support.terminal import COMMAND

FILES = 64
SHARDS = 3
FORMS = ("safetensors", "bin", "streamed", "cache")


def _to_bins(folder: Path) -> None:
    """Store every shard as torch does, with its index."""
    for file in folder.glob("*/model-*.safetensors"):
        torch.save(safetensors.torch.load_file(file), file.with_name(_bin(file.name)))
        file.unlink()
    for index in folder.glob("*/model.safetensors.index.json"):
        text = index.read_text().replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
        index.with_name("pytorch_model.bin.index.json").write_text(text)
        index.unlink()


def _bin(name: str) -> str:
    return f"pytorch_{name}".replace(".safetensors", ".bin")


def _recipe(folder: str, base: str, count: int) -> dict[str, Any]:
    return {
        "merge_method": "relex",
        "base_model": base,
        "models": [{"model": f"{folder}step_{{1..{count}}}"}],
        "parameters": {"target_step": 2 * count},
    }


def _weights(out: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(out).items() if "model-" in name}


@contextmanager
def _open(bench: Bench) -> Iterator[Trial]:
    count, folder = 25 if bench.quick else 100, bench.folder / "series"
    series = make_series(folder, steps=range(1, count + 1), shards=SHARDS)
    bins = bench.folder / "bins"
    local = _recipe(f"{folder}/", str(folder / "base"), count)
    remote = _recipe("org/run@", "org/base", count)
    write(local, bench.folder / "whole/out")
    whole = _weights(bench.folder / "whole/out")

    def trial(number: int) -> None:
        form = FORMS[number % len(FORMS)]
        if form == "bin" and not bins.exists():
            _to_bins(Path(shutil.copytree(folder, bins)))
        if form in ("streamed", "cache") and not hub.repos:
            publish(hub, series)
        recipe, options = {
            "safetensors": (local, ""),
            "bin": (_recipe(f"{bins}/", str(bins / "base"), count), ""),
            "streamed": (remote, "--stream"),
            "cache": (remote, "--no-stream"),
        }[form]
        work = bench.work(number)
        path = write_recipe(work / "r.yml", recipe)
        command = (
            f"ulimit -n {FILES}; exec {COMMAND} run {path} {work / 'out'} --yes --quiet "
            "--no-figure "
            f"--out-shard-size {SHARD} {options}"
        )
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        said = [line for line in done.stderr.splitlines() if line and "it/s]" not in line]
        assert done.returncode == 0, f"{form}: {said[-3:]}"
        assert _weights(work / "out") == whole, f"{form}: other bytes"
        shutil.rmtree(work)

    with emptied_hub() as hub:
        yield trial


CAMPAIGN = Campaign("descriptors", f"100 sharded checkpoints, ulimit -n {FILES}", 4, _open)
