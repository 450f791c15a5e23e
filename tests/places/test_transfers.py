"""The requests of one run: so many at a time, none asked twice, and a later run goes on."""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest

import relex_merge
from relex_merge.errors import RelexError
from relex_merge.hub.body import Span
from relex_merge.pipeline.staging import Staging
from relex_merge.places.pin import pin
from relex_merge.places.ranges import AT_A_TIME, Transfers
from tests.support.models import Series
from tests.support.object_store import Store


def _spans(count: int) -> tuple[bytearray, list[Span]]:
    into = bytearray(count)
    views = [memoryview(into)[i : i + 1] for i in range(count)]
    return into, [Span(i, i + 1, deque([view])) for i, view in enumerate(views)]


def test_ranges_are_asked_for_at_the_same_time_but_not_too_many(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(range(100))
    memory.files.pipe_file(memory.path("run", "x"), data)
    file = pin(f"{memory.address}/run").file("x")
    kind = type(memory.files)
    cat_file, lock = kind.cat_file, threading.Lock()
    now = most = 0

    def counted(files: Any, path: str, start: int, end: int) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.005)
        with lock:
            now -= 1
        return cat_file(files, path, start=start, end=end)

    monkeypatch.setattr(kind, "cat_file", counted)
    transfers = Transfers()
    results = [_spans(100) for _ in range(3)]
    threads = [threading.Thread(target=transfers.read, args=(file, s)) for _, s in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(into == data for into, _ in results)
    assert 1 < most <= AT_A_TIME


def test_nothing_is_asked_for_once_the_run_has_stopped(memory: Store) -> None:
    memory.files.pipe_file(memory.path("run", "x"), b"data")
    file = pin(f"{memory.address}/run").file("x")
    transfers = Transfers()
    with pytest.raises(KeyError), transfers.stopped_by_errors():
        raise KeyError
    with pytest.raises(RelexError, match="the run was stopped"):
        transfers.read(file, _spans(4)[1])


def test_a_run_that_was_interrupted_goes_on_where_it_was(
    s3: Store, series: Series, tmp_path: Path, no_figure: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mergekit.options import MergeOptions

    s3.put_series(series)
    options = MergeOptions(out_shard_size=4_000)
    read, finish_shard = Transfers.read, Staging.finish_shard
    asked: list[int] = []
    finished: list[int] = []

    def counted(self: Transfers, file: Any, spans: Any) -> None:
        asked.append(sum(span.stop - span.start for span in spans))
        read(self, file, spans)

    def interrupted(self: Staging, index: int, files: Any) -> None:
        finish_shard(self, index, files)
        finished.append(index)
        if len(finished) == 4:
            raise KeyboardInterrupt

    def run(out: Path) -> dict[str, bytes]:
        asked.clear()
        relex_merge.extrapolate(s3.recipe(series), out, options=options, quiet=True)
        return {path.name: path.read_bytes() for path in out.glob("model*")}

    monkeypatch.setattr(Transfers, "read", counted)
    whole = run(tmp_path / "whole")
    everything = sum(asked)
    with monkeypatch.context() as patch:
        patch.setattr(Staging, "finish_shard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert run(tmp_path / "out") == whole
    assert sum(asked) < everything * 0.8
