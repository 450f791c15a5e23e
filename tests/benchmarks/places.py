"""The same series from the disk and from S3 over loopback, through the engine.

    python -m tests.benchmarks.make_series FOLDER --checkpoints 20
    python -m tests.benchmarks.places FOLDER --repeat 5 [--json FILE]

A server in a process of its own plays S3; s3fs reads from it. Each run is a process of its own as
well, disk and S3 in turns; start and imports are left out of the times. Compared are the fastest
runs: on a machine that others use too, the rest measures the others. Processor time depends less on
them, so its smallest is shown as well.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.stream import GOAL, run_once

BUCKET = "s3://series"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The endpoint of an S3 whose bucket is the series' folder."""
    command = [sys.executable, "-m", "tests.benchmarks.s3_folder", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def in_bucket(folder: Path, recipe: Path) -> Path:
    """The series' recipe with addresses in place of folders."""
    settings = yaml.safe_load((folder / "recipe.yml").read_text())
    settings["base_model"] = f"{BUCKET}/base"
    for entry in settings["models"]:
        entry["model"] = f"{BUCKET}/{Path(entry['model']).name}"
    recipe.write_text(yaml.safe_dump(settings))
    return recipe


def in_process(recipe: Path, out: Path, endpoint: str, home: str) -> dict[str, Any]:
    """``run_once`` in a new process, whose S3 is ``endpoint`` and whose cache is ``home``."""
    environment = {"AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
    environment |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "HF_HOME": home}
    command = [sys.executable, "-m", "tests.benchmarks.places", "--once", str(recipe), str(out)]
    done = subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(folder: Path, repeat: int) -> dict[str, Any]:
    """All runs of each kind, the fastest of each, and how disk and S3 compare."""
    runs: dict[str, list[dict[str, Any]]] = {"disk": [], "s3": []}
    with served(folder) as endpoint, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        root = Path(scratch)
        recipes = {"disk": folder / "recipe.yml", "s3": in_bucket(folder, root / "s3.yml")}
        for number in range(repeat):
            for kind, found in runs.items():
                home = str(root / f"home-{number}")
                found.append(in_process(recipes[kind], root / "out", endpoint, home))
                assert found[-1]["streamed"] == (kind == "s3")
    best = {kind: min(found, key=lambda r: r["engine_seconds"]) for kind, found in runs.items()}
    for kind, found in runs.items():
        best[kind]["processor_seconds"] = min(
            r["user_seconds"] + r["system_seconds"] for r in found
        )
    ratio = best["s3"]["engine_seconds"] / best["disk"]["engine_seconds"]
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
    lines.append(f"s3 / disk: {found['ratio']:.2f} (goal: at most {GOAL})")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="what make_series wrote")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--once", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(run_once(*arguments.once)))
        return
    found = measure(arguments.folder.resolve(), arguments.repeat)
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
