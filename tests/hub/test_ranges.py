"""The requests of one run: what is left of them, and how they end."""

from __future__ import annotations

import gc
import threading
import warnings
from collections import deque
from pathlib import Path

import pytest

from relex_merge.errors import RelexError
from relex_merge.hub import download
from relex_merge.hub.ranges import REQUESTS, Connections, RemoteFile, Span
from tests.fake_hub import Fault, Hub
from tests.support.streams import publish, small, streamed

__all__ = ["small"]
REPO = "org/model"
FILE = "model.safetensors"
CONTENT = bytes(i % 251 for i in range(1000))


@pytest.fixture
def file(hub: Hub) -> RemoteFile:
    hub.commit(REPO, {FILE: CONTENT})
    return RemoteFile(download.pin(REPO, "main").at(), FILE, REPO)


def spans(data: bytearray, size: int) -> list[Span]:
    views = [memoryview(data)[i : i + size] for i in range(0, len(data), size)]
    starts = range(0, len(data), size)
    return [Span(s, s + len(v), deque([v])) for s, v in zip(starts, views, strict=True)]


def test_nothing_is_left_running_and_nothing_needs_closing(
    hub: Hub, small: object, file: RemoteFile
) -> None:
    data = bytearray(len(CONTENT))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        connections = Connections()
        connections.read(file, spans(data, 20))
        del connections
        gc.collect()
    assert data == CONTENT
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("relex-")]


def test_a_run_leaves_no_thread(hub: Hub, small: object, tmp_path: Path) -> None:
    publish(hub, small)  # type: ignore[arg-type]
    streamed(tmp_path / "out")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("relex-")]


def test_all_threads_together_keep_to_the_limit(hub: Hub, file: RemoteFile) -> None:
    connections = Connections()
    hub.faults.add(Fault("GET /cdn/", times=None, delay=0.005))
    buffers = [bytearray(len(CONTENT)) for _ in range(4)]
    readers = [
        threading.Thread(target=connections.read, args=(file, spans(buffer, 40)))
        for buffer in buffers
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert all(buffer == CONTENT for buffer in buffers)
    assert 4 < hub.log.most_at_once("/cdn/") <= REQUESTS


def test_an_error_in_the_block_stops_the_requests_of_all_threads(file: RemoteFile) -> None:
    connections = Connections()
    with pytest.raises(KeyboardInterrupt), connections.stopped_by_errors():
        raise KeyboardInterrupt
    with pytest.raises(RelexError, match="the run was stopped"):
        connections.read(file, spans(bytearray(10), 10))


def test_the_first_reason_counts(file: RemoteFile) -> None:
    connections = Connections()
    first = RelexError("first")
    assert connections.stop(first) is connections.stop(RelexError("second")) is first
    with pytest.raises(RelexError, match="first"):
        connections.size(file)
