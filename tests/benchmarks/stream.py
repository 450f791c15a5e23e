"""The same series from the disk and over loopback HTTP, through the engine.

    python -m tests.benchmarks.make_series FOLDER --checkpoints 40
    python -m tests.benchmarks.stream FOLDER --repeat 5 [--json FILE]

A server in a process of its own plays the Hub. Each run is a process of its own as well, disk,
stream, and stream with all bodies through the client (see relex_merge.hub.body) in turns; start and
imports are left out of the times. Compared are the fastest runs: on a machine that others use too,
the rest measures the others. Processor time depends less on them, so its smallest is shown as well.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from relex_merge.hub import body
from relex_merge.pipeline import models_to_model
from relex_merge.recipe.variant import Variant

REPO = "org/series"
GOAL = 1.5  # times the time from the disk


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The endpoint of a Hub that has the series' folders as branches of ``REPO``."""
    command = [sys.executable, "-m", "tests.fake_hub.serve", "--repo", f"{REPO}={folder}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def on_hub(folder: Path, recipe: Path) -> Path:
    """The series' recipe with branches in place of folders."""
    settings = yaml.safe_load((folder / "recipe.yml").read_text())
    settings["base_model"] = f"{REPO}@base"
    for entry in settings["models"]:
        entry["model"] = f"{REPO}@{Path(entry['model']).name}"
    recipe.write_text(yaml.safe_dump(settings))
    return recipe


def run_once(recipe: Path, out: Path) -> dict[str, Any]:
    """Plan and compute in this process; seconds of each, and of processor time."""
    from mergekit.options import MergeOptions

    from relex_merge.engine.resources import available
    from relex_merge.pipeline import prepare
    from relex_merge.pipeline.options import RunOptions
    from relex_merge.pipeline.staging import staging
    from relex_merge.pipeline.writing import Job
    from relex_merge.recipe.load import load_recipe

    read = 0

    def progress(total: int) -> Any:
        nonlocal read
        read = total
        return lambda nbytes: None

    loaded, options = load_recipe(recipe), MergeOptions()
    begin = time.perf_counter()
    prepared = prepare.prepare(loaded, [Variant()], options)
    planned = time.perf_counter()
    resources = available(options, None)
    with staging(out.resolve(), force=False) as stage:
        before = resource.getrusage(resource.RUSAGE_SELF)
        models_to_model.write_weights(
            Job(
                prepared=prepared,
                options=RunOptions(merge=options),
                stage=stage,
                folders=[stage.content],
                resources=resources,
                progress=progress,
            )
        )
        done, after = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        stage.discard()
    return {
        "streamed": prepared.snapshots[0].streamed,
        "plan_seconds": planned - begin,
        "engine_seconds": done - planned,
        "user_seconds": after.ru_utime - before.ru_utime,
        "system_seconds": after.ru_stime - before.ru_stime,
        "bytes": read,
    }


def in_process(kind: str, recipe: Path, out: Path, endpoint: str, home: str) -> dict[str, Any]:
    """``run_once`` in a new process, whose Hub is ``endpoint`` and whose cache is ``home``."""
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": home, "HF_HUB_DISABLE_XET": "1"}
    environment |= {"NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-m", "tests.benchmarks.stream", "--once", str(recipe), str(out)]
    command += ["--by-client"] if kind == "client" else []
    done = subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(folder: Path, repeat: int) -> dict[str, Any]:
    """All runs of each kind, the fastest of each, and how disk and stream compare."""
    runs: dict[str, list[dict[str, Any]]] = {"disk": [], "stream": [], "client": []}
    with served(folder) as endpoint, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        root = Path(scratch)
        disk, hub = folder / "recipe.yml", on_hub(folder, root / "hub.yml")
        for number in range(repeat):
            for kind, found in runs.items():
                recipe = disk if kind == "disk" else hub
                home = str(root / f"home-{number}")
                found.append(in_process(kind, recipe, root / "out", endpoint, home))
                assert found[-1]["streamed"] == (kind != "disk")
    best = {kind: min(found, key=lambda r: r["engine_seconds"]) for kind, found in runs.items()}
    for kind, found in runs.items():
        best[kind]["processor_seconds"] = min(
            r["user_seconds"] + r["system_seconds"] for r in found
        )
    ratio = best["stream"]["engine_seconds"] / best["disk"]["engine_seconds"]
    return {"ratio": ratio, "goal": GOAL, "best": best, "runs": runs}


def table(found: dict[str, Any]) -> str:
    """The fastest runs, for people."""
    lines = [f"{'':8}{'plan s':>8}{'engine s':>10}{'GB/s':>8}{'processor s':>13}"]
    for kind, run in found["best"].items():
        rate = run["bytes"] / run["engine_seconds"] / 1e9
        lines.append(
            f"{kind:8}{run['plan_seconds']:8.2f}{run['engine_seconds']:10.2f}{rate:8.2f}"
            f"{run['processor_seconds']:13.2f}"
        )
    lines.append(f"stream / disk: {found['ratio']:.2f} (goal: at most {GOAL})")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="what make_series wrote")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--once", type=Path, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--by-client", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.by_client:
        body.LARGE = sys.maxsize
    if arguments.once:
        print(json.dumps(run_once(*arguments.once)))
        return
    found = measure(arguments.folder.resolve(), arguments.repeat)
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
