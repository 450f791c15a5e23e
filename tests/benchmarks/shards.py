"""FSDP shards through the engine beside the same weights as safetensors, and how fast they open.

    python -m tests.benchmarks.make_series FOLDER --checkpoints 8 --float32
    python -m tests.benchmarks.shards engine FOLDER --world 8 --repeat 3 [--json FILE]
    python -m tests.benchmarks.shards open FOLDER --checkpoints 75 --world 8 [--s3] [--json FILE]

``engine`` writes the series once more as verl's shards of W ranks beside it (real DTensors of
torch, made by its fake process group), and runs both recipes, each run a process of its own, in
turns; compared are the fastest runs, and the processor time of the cheapest. ``open`` writes sparse
files of the layout of Qwen2.5-1.5B (338 tensors, their bytes left out by
``torch.serialization.skip_data``), and opens every checkpoint as a run does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from relex_merge.checkpoints.sharded import FSDP_CONFIG
from relex_merge.hub.body import Span
from relex_merge.places.pin import PlaceFile
from relex_merge.places.ranges import Transfers
from relex_merge.recipe.braces import expand_braces
from tests.benchmarks.places import BUCKET, served
from tests.benchmarks.stream import run_once
from tests.support.one_process_ranks import save_ranks

GOAL = 1.3  # times the time with safetensors
OPEN_GOAL = 10.0  # seconds for 75 × 8 files


def write_shards(folder: Path, world: int) -> Path:
    """Write the series of a recipe as shards, where they are not yet; return the new recipe."""
    settings = yaml.safe_load((folder / "recipe.yml").read_text())
    names = [n for entry in settings["models"] for n in expand_braces(entry["model"])]
    settings["models"] = [{"model": name} for name in names]
    for entry in settings["models"]:
        plain = folder / Path(entry["model"]).name
        actor = folder / f"shards-{world}" / plain.name.replace("step", "global_step") / "actor"
        entry["model"] = str(actor)
        if not (actor / FSDP_CONFIG).is_file():
            save_ranks(actor, load_file(plain / "model.safetensors"), world)
            (actor / "huggingface").mkdir(exist_ok=True)
            shutil.copy(plain / "config.json", actor / "huggingface")
            (actor / FSDP_CONFIG).write_text(json.dumps({"world_size": world}))
    recipe = folder / f"shards-{world}.yml"
    recipe.write_text(yaml.safe_dump(settings))
    return recipe


def in_process(recipe: Path, out: Path) -> dict[str, Any]:
    """Run the engine over a recipe in a new process."""
    command = [sys.executable, "-m", "tests.benchmarks.shards", "once", str(recipe), str(out)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_engine(folder: Path, world: int, repeat: int) -> dict[str, Any]:
    """Run both recipes in turns; the fastest runs, and their ratio."""
    recipes = {"safetensors": folder / "recipe.yml", "shards": write_shards(folder, world)}
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in recipes}
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        for _ in range(repeat):
            for kind, recipe in recipes.items():
                runs[kind].append(in_process(recipe, Path(scratch, "out")))
    best: dict[str, dict[str, Any]] = {}
    for kind, found in runs.items():
        best[kind] = {
            "plan_seconds": min(run["plan_seconds"] for run in found),
            "engine_seconds": min(run["engine_seconds"] for run in found),
            "processor_seconds": min(r["user_seconds"] + r["system_seconds"] for r in found),
            "bytes": found[0]["bytes"],
        }
    ratios = {
        key: best["shards"][key] / best["safetensors"][key]
        for key in ("engine_seconds", "processor_seconds")
    }
    return {"ratios": ratios, "goal": GOAL, "best": best, "runs": runs}


def layout() -> dict[str, tuple[int, ...]]:
    """Names and shapes of Qwen2.5-1.5B."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    names = [name for name in model.state_dict() if name != "lm_head.weight"]
    return {name: tuple(model.state_dict()[name].shape) for name in names}


def save_sparse(parts: Any, path: Path) -> None:
    """Save without the bytes of the storages, in whose places the file has holes."""
    with torch.serialization.skip_data():
        torch.save(parts, path)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file with its holes."""
    with source.open("rb") as read, target.open("wb") as write:
        size = source.stat().st_size
        begin = 0
        while True:
            try:
                begin = os.lseek(read.fileno(), begin, os.SEEK_DATA)
            except OSError:  # nothing but a hole is left
                break
            end = os.lseek(read.fileno(), begin, os.SEEK_HOLE)
            read.seek(begin)
            write.seek(begin)
            write.write(read.read(end - begin))
            begin = end
        write.truncate(size)


class Counted(Transfers):
    """Transfers that count what they are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges = 0
        self.nbytes = 0

    def read(self, file: PlaceFile, spans: Sequence[Span]) -> None:
        """Fill all spans of a file."""
        self.ranges += len(spans)
        self.nbytes += sum(span.stop - span.start for span in spans)
        super().read(file, spans)


def measure_open(
    folder: Path, checkpoints: int, world: int, endpoint: str | None = None
) -> dict[str, Any]:
    """Open every checkpoint as a run does; seconds, processor seconds, and ranges of a place.

    endpoint: of an S3 that has the folder, None to read it on the disk.
    """
    from relex_merge.checkpoints import locate
    from relex_merge.checkpoints.shard_file import COLLECTOR
    from relex_merge.weights.sharded import open_sharded

    shapes = layout()
    whole = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    actors = [folder / f"open-{world}/global_step_{n}/actor" for n in range(checkpoints)]
    first = actors[0]
    if not (first / FSDP_CONFIG).is_file():
        save_ranks(first, whole, world, save_sparse)
        (first / FSDP_CONFIG).write_text(json.dumps({"world_size": world}))
    for actor in actors[1:]:
        actor.mkdir(parents=True, exist_ok=True)
        for file in first.iterdir():
            if not (actor / file.name).is_file():
                copy_sparse(file, actor / file.name)
    references = [str(actor) for actor in actors]
    if endpoint is not None:
        environment = {"AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
        os.environ |= {**environment, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        references = [f"{BUCKET}/{actor.relative_to(folder).as_posix()}" for actor in actors]
    transfers = Counted()
    with tempfile.TemporaryDirectory() as cache:
        begin, used = time.perf_counter(), time.process_time()
        snapshots = locate.locate(references, cache_dir=cache)
        located = time.perf_counter()
        with COLLECTOR.at_rest():
            sources = locate.in_parallel(
                lambda s: open_sharded(s.sharded, s.reference, transfers) if s.sharded else None,
                snapshots,
            )
        done, processor = time.perf_counter(), time.process_time() - used
    assert all(s is not None and len(s.tensors) == len(shapes) for s in sources)
    return {
        "ranges": transfers.ranges,
        "range_bytes": transfers.nbytes,
        "checkpoints": checkpoints,
        "world": world,
        "tensors": len(shapes),
        "locate_seconds": located - begin,
        "open_seconds": done - located,
        "seconds": done - begin,
        "processor_seconds": processor,
        "goal": OPEN_GOAL,
    }


def table(found: dict[str, Any]) -> str:
    """What was measured, for people."""
    if "seconds" in found:
        return (
            f"{found['checkpoints']} × {found['world']} files of {found['tensors']} tensors: "
            f"{found['seconds']:.1f} s ({found['processor_seconds']:.1f} processor s; goal: "
            f"less than {OPEN_GOAL:g} s); {found['ranges']} ranges of a place with "
            f"{found['range_bytes']:,} bytes"
        )
    lines = [f"{'':12}{'plan s':>8}{'engine s':>10}{'GB/s':>8}{'processor s':>13}"]
    for kind, run in found["best"].items():
        rate = run["bytes"] / run["engine_seconds"] / 1e9
        lines.append(
            f"{kind:12}{run['plan_seconds']:8.2f}{run['engine_seconds']:10.2f}{rate:8.2f}"
            f"{run['processor_seconds']:13.2f}"
        )
    ratios = found["ratios"]
    lines.append(
        f"shards / safetensors: {ratios['engine_seconds']:.2f}, of processor time "
        f"{ratios['processor_seconds']:.2f} (goal: at most {GOAL})"
    )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["engine", "open", "once"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path, nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--world", type=int, default=8)
    parser.add_argument("--checkpoints", type=int, default=75)
    parser.add_argument("--s3", action="store_true", help="open: from an S3 over loopback")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write all figures")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.what == "once":
        print(json.dumps(run_once(folder, arguments.out)))
        return
    if arguments.what == "engine":
        found = measure_engine(folder, arguments.world, arguments.repeat)
    elif arguments.s3:
        with served(folder) as endpoint:
            found = measure_open(folder, arguments.checkpoints, arguments.world, endpoint)
    else:
        found = measure_open(folder, arguments.checkpoints, arguments.world)
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
