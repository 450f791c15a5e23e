"""Promises about runs that are stopped, and that nothing but the input decides the output."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from mergekit.options import MergeOptions

import relex_merge
from relex_merge.errors import RelexError
from tests.support.models import (
    Series,
    expected,
    make_series,
    read_weights,
    worst_error,
    write_weights,
)
from tests.support.outputs import contents
from tests.support.stopped import Stop, Work, forkserver, stopped

SHARD = 12_000  # bytes: some forty shards


def run(recipe: dict[str, Any], out: Path, **how: Any) -> None:
    options = MergeOptions(
        out_shard_size=how.pop("shard", SHARD), num_threads=how.pop("threads", 2)
    )
    relex_merge.extrapolate(recipe, out, options=options, quiet=True, figure=False, **how)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return make_series(
        tmp_path_factory.mktemp("long"), steps=(1, 2, 3), hidden_size=32, num_hidden_layers=8
    )


@pytest.fixture(scope="module")
def whole(series: Series, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run that nobody stops writes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run(series.recipe(), out)
    assert len(list(out.glob("model-*"))) >= 15
    return contents(out)


@pytest.fixture(scope="module")
def forks() -> ForkServerContext:
    """Processes that begin with everything imported, so that a kill meets the work itself."""
    return forkserver()


def finished_shards(out: Path) -> int:
    try:
        text = (out.parent / f".{out.name}.relex-partial/manifest.json").read_text()
    except OSError:
        return 0
    return len(json.loads(text)["finished"])


def stop_when(
    process: ForkServerProcess, reached: Callable[[], bool], number: int = signal.SIGKILL
) -> None:
    """Start the process and send it the signal as soon as ``reached``; return when it is gone."""
    process.start()
    while process.is_alive() and not reached():
        time.sleep(0.001)
    if process.is_alive():
        assert process.pid is not None
        os.kill(process.pid, number)
    process.join()


def test_killed_again_and_again_the_output_is_whole_or_not_there(
    series: Series, whole: dict[str, bytes], forks: ForkServerContext, tmp_path: Path
) -> None:
    out = tmp_path / "work/out"
    kept: dict[str, int] = {}
    kills = 0
    for _ in range(60):
        goal = finished_shards(out) + 4
        process = forks.Process(target=run, args=(series.recipe(), out))
        stop_when(process, lambda: finished_shards(out) >= goal)  # noqa: B023  # called at once
        if out.exists():
            break
        assert finished_shards(out) >= goal - 4, "a finished shard was forgotten"
        kills += 1
        content = out.parent / ".out.relex-partial/content"
        if not kept and content.is_dir():
            done = json.loads((content.parent / "manifest.json").read_text())["finished"]
            total = next(content.glob("model-*")).stem.rpartition("-")[2]
            shards = [content / f"model-{int(i) + 1:05d}-of-{total}.safetensors" for i in done]
            kept = {shard.name: shard.stat().st_mtime_ns for shard in shards}
    assert kills >= 3
    if not out.exists():
        run(series.recipe(), out)
    assert contents(out) == whole
    if names(out.parent) != {"out"}:  # killed after the renaming
        run(series.recipe(), out, force=True)
        assert contents(out) == whole
    assert names(out.parent) == {"out"}
    assert kept
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept


def test_killed_over_an_old_output_at_changes_of_the_disk(
    series: Series, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(series.recipe(99), out)
    old, kills = contents(out), 0
    work = Work(run, (series.recipe(), out), {"force": True}, tmp_path)
    for n in (4, 8, 16, 32, 64, 128):
        died = stopped(work, Stop("change", n))
        kills += died
        assert contents(out) in (old, whole, {})
        if not died:
            break
    assert kills >= 3
    run(series.recipe(), out, force=True)
    assert contents(out) == whole
    assert names(tmp_path) == {"out"}


def test_what_was_finished_is_not_made_again_even_after_a_run_that_fails(
    series: Series, whole: dict[str, bytes], forks: ForkServerContext, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = forks.Process(target=run, args=(series.recipe(), out))
    stop_when(process, lambda: finished_shards(out) >= 3)
    done = finished_shards(out)
    assert done >= 3
    assert not out.exists()
    with pytest.raises(RelexError, match="rank is 9"):
        run(series.recipe(rank=9), out)
    assert finished_shards(out) == done
    run(series.recipe(), out)
    assert contents(out) == whole


@pytest.mark.parametrize("change", ["recipe", "weights", "shards"])
def test_another_run_does_not_go_on_from_what_it_finds(
    change: str, forks: ForkServerContext, tmp_path: Path
) -> None:
    series = make_series(tmp_path / "run", steps=(1, 2, 3), num_hidden_layers=8)
    out = tmp_path / "out"
    process = forks.Process(target=run, args=(series.recipe(), out))
    stop_when(process, lambda: finished_shards(out) >= 3)
    assert finished_shards(out) >= 3
    recipe, shard = series.recipe(), SHARD
    if change == "recipe":
        recipe = series.recipe(99)
    elif change == "weights":
        write_weights(series.checkpoints[1], {n: w * 1.001 for n, w in series.states[1].items()})
    else:
        shard = 2 * SHARD
    run(recipe, out, shard=shard)
    run(recipe, tmp_path / "same/out", shard=shard)
    assert contents(out) == contents(tmp_path / "same/out")
    assert not list(tmp_path.glob(".*"))


def test_ctrl_c_in_the_middle_leaves_no_output_and_the_next_run_goes_on(
    series: Series, whole: dict[str, bytes], forks: ForkServerContext, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = forks.Process(target=run, args=(series.recipe(), out))
    stop_when(process, lambda: finished_shards(out) >= 2, signal.SIGINT)
    assert process.exitcode == 1
    assert not out.exists()
    run(series.recipe(), out)
    assert contents(out) == whole
    assert names(tmp_path) == {"out"}


def test_two_runs_at_once_do_not_mix(
    series: Series, whole: dict[str, bytes], forks: ForkServerContext, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = forks.Process(target=run, args=(series.recipe(), out))
    process.start()
    while finished_shards(out) < 1 and process.is_alive():
        time.sleep(0.001)
    if process.is_alive():
        for _ in range(2):  # the refusal leaves the other's lock alone
            with pytest.raises(RelexError, match=r"another run is writing|is not empty"):
                run(series.recipe(99), out)
    process.join()
    assert process.exitcode == 0
    assert contents(out) == whole
    assert names(tmp_path) == {"out"}


# nothing but the input decides the output


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """One tensor is larger than the smallest budget."""
    return make_series(
        tmp_path_factory.mktemp("wide"),
        dtype=torch.bfloat16,
        scale=0.01,
        vocab_size=40_000,
        hidden_size=64,
        num_hidden_layers=1,
    )


def smallest_budget(recipe: dict[str, Any], out: Path) -> int:
    with pytest.raises(RelexError, match="raise --memory-budget") as caught:
        run(recipe, out, memory_budget=1)
    numbers = [word.rstrip(";,").replace(",", "") for word in str(caught.value).split()]
    return max(int(number) for number in numbers if number.isdigit())


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def test_threads_budgets_and_passes_do_not_change_a_byte(wide: Series, tmp_path: Path) -> None:
    recipe = wide.recipe()
    least = smallest_budget(recipe, tmp_path / "no")
    results = {}
    read = {}
    for threads, budget in [(1, 2**30), (2, 2**30), (3, 2**30), (2, least), (1, 3 * least // 2)]:
        out = tmp_path / f"{threads}-{budget}" / "out"
        before = bytes_read()
        run(recipe, out, threads=threads, memory_budget=budget, shard=2**30)
        read[threads, budget] = bytes_read() - before
        results[threads, budget] = contents(out)
    first, *others = results.values()
    assert all(other == first for other in others)
    # The smallest budget needed a second pass over the large tensor; the large ones did not.
    stored = sum(p.stat().st_size for p in wide.base.parent.rglob("model.safetensors"))
    assert read[2, 2**30] < 1.3 * stored
    assert read[2, least] > 1.7 * stored


def test_a_large_tensor_in_two_passes_agrees_with_the_svd(wide: Series, tmp_path: Path) -> None:
    recipe = {**wide.recipe(), "out_dtype": "float32", "dtype": "float32"}
    run(recipe, tmp_path / "out", memory_budget=smallest_budget(recipe, tmp_path / "no"))
    assert worst_error(read_weights(tmp_path / "out"), expected(wide)) < 1e-6


def test_the_order_of_the_checkpoints_in_the_recipe_does_not_change_a_weight(
    series: Series, tmp_path: Path
) -> None:
    recipe = series.recipe()
    run(recipe, tmp_path / "a")
    recipe["models"].reverse()
    run(recipe, tmp_path / "b")
    one, other = read_weights(tmp_path / "a"), read_weights(tmp_path / "b")
    assert all(torch.equal(one[n], other[n]) for n in one)
