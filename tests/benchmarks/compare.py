"""cat, relex-merge, mergekit's own path and the official scripts on one series, in one run.

    python -m tests.benchmarks.make_series SERIES
    python -m tests.benchmarks.compare SERIES [--official CLONE] [--json FILE]

Prints wall time, time without process start and imports ("own"), peak anonymous memory, and bytes
through read and write calls. The official scripts (a clone of weizhepei/RELEX) report no time of
their own; the time to import what they import is measured and taken off. "cold" needs root: the
page cache is dropped before.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from tests.benchmarks.measure import Measured, measure, table

IMPORTS = (
    "import scipy.optimize, safetensors.torch, transformers; transformers.AutoModelForCausalLM"
)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("series", type=Path)
    parser.add_argument("--official", type=Path, help="a clone of weizhepei/RELEX")
    parser.add_argument("--without-mergekit", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    series = arguments.series.resolve()
    files = [str(f) for f in sorted(series.glob("*/model.safetensors"))]
    recipe = str(series / "recipe.yml")

    rows: dict[str, Measured] = {}
    if os.geteuid() == 0:
        drop_page_cache()
        rows["cat, cold"] = measure(["cat", *files])
        drop_page_cache()
        rows["relex-merge run, cold"] = timed("engine", recipe)
    measure(["cat", *files])
    rows["cat, warm"] = measure(["cat", *files])
    rows["relex-merge run"] = timed("engine", recipe)
    rows["relex-merge run, 1 GiB"] = timed("engine", recipe, str(2**30))
    with scratch() as out:
        command = [str(Path(sys.executable).with_name("relex-merge")), "run", recipe, f"{out}/out"]
        rows["relex-merge run, command"] = measure([*command, "--quiet"])
    if not arguments.without_mergekit:
        rows["mergekit run_merge"] = timed("mergekit", recipe)
    if arguments.official:
        rows["official scripts"] = official(arguments.official.resolve(), series)
    print(table(rows, "cat, warm"))
    if arguments.json:
        arguments.json.write_text(json.dumps({k: asdict(m) for k, m in rows.items()}, indent=1))


def timed(kind: str, recipe: str, *budget: str) -> Measured:
    """The engine or mergekit's path in a process of its own; budget: bytes of memory."""
    with scratch() as out:
        report = out / "report.json"
        module = [sys.executable, "-m", "tests.benchmarks.timed"]
        return measure([*module, kind, recipe, str(out / "out"), str(report), *budget], report)


def official(clone: Path, series: Path) -> Measured:
    """Both scripts, on folders named as they expect."""
    steps = sorted(int(p.name[5:]) for p in series.glob("step_*"))
    imports = measure([sys.executable, "-c", IMPORTS]).wall
    with scratch() as out:
        for number in steps:
            (out / f"global_step_{number}").symlink_to(series / f"step_{number}")
        deltas = measure([
            sys.executable, str(clone / "scripts/precompute_deltas.py"),
            "--base_model", str(series / "base"), "--checkpoint_dir", str(out),
            "--output_dir", str(out / "deltas"), "--num_workers", "2",
        ])  # fmt: skip
        solved = measure([
            sys.executable, str(clone / "scripts/svd_extrapolation.py"),
            "--delta_dir", str(out / "deltas"), "--base_model", str(series / "base"),
            "--output_dir", str(out / "relex"), "--history_steps", str(len(steps)),
            "--rank", "1", "--target_steps", str(5 * len(steps)), "--mode", "extrapolate",
            "--num_workers", "2",
        ])  # fmt: skip
    wall = deltas.wall + solved.wall
    return replace(
        deltas,
        wall=wall,
        inner=wall - 2 * imports,
        anonymous=max(deltas.anonymous, solved.anonymous),
        read=deltas.read + solved.read,
        written=deltas.written + solved.written,
    )


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="relex-compare-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def drop_page_cache() -> None:
    """What is read next comes from the disk."""
    subprocess.run(["sync"], check=True)
    Path("/proc/sys/vm/drop_caches").write_text("1")


if __name__ == "__main__":
    main()
