"""Bodies that come from the socket under the client: what that relies on, and that it cannot fail.

``test_the_installed_client_hands_over_its_socket`` is the one that must break when the client
changes: then measure with ``python -m tests.benchmarks.stream`` whether it is still worth it.
"""

from __future__ import annotations

import importlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from relex_merge.errors import RelexError
from relex_merge.hub import body, download
from relex_merge.hub.body import LARGE, Span
from relex_merge.hub.ranges import Connections, RemoteFile
from tests.fake_hub import Fault, Hub

REPO = "org/model"
FILE = "model.safetensors"
CONTENT = bytes(i * i % 251 for i in range(2 * LARGE))


@pytest.fixture
def file(hub: Hub) -> RemoteFile:
    hub.commit(REPO, {FILE: CONTENT})
    return RemoteFile(download.pin(REPO, "main").at(), FILE, REPO)


def read(connections: Connections, file: RemoteFile) -> tuple[bytes, Span]:
    """The whole file, into three buffers, and the span as it was left."""
    data = bytearray(len(CONTENT))
    cuts = (0, 10, LARGE, len(CONTENT))
    views = [memoryview(data)[a:b] for a, b in itertools.pairwise(cuts)]
    span = Span(0, len(CONTENT), deque(views))
    connections.read(file, [span])
    return bytes(data), span


@contextmanager
def client(change: Callable[[Any], Any]) -> Iterator[None]:
    """The client of huggingface_hub with its answers changed, as a user may set one."""
    library = importlib.import_module(type(huggingface_hub.get_session()).__module__.split(".")[0])

    class Transport(library.HTTPTransport):  # type: ignore[misc, name-defined]
        def handle_request(self, request: Any) -> Any:
            return change(super().handle_request(request))

    from huggingface_hub.utils._http import default_client_factory

    huggingface_hub.set_client_factory(lambda: library.Client(transport=Transport()))
    try:
        yield
    finally:
        huggingface_hub.set_client_factory(default_client_factory)


def in_parts(change: Callable[[Iterable[bytes]], Iterator[bytes]]) -> Callable[[Any], Any]:
    """An answer whose body is handed over in other parts."""

    def changed(response: Any) -> Any:
        stream = response.stream

        class Stream(type(stream)):  # type: ignore[misc]
            def __init__(self) -> None:
                pass

            def __iter__(self) -> Iterator[bytes]:
                return change(stream)

            def close(self) -> None:
                stream.close()

        response.stream = Stream()
        return response

    return changed


def test_the_installed_client_hands_over_its_socket(file: RemoteFile) -> None:
    address = file.address()
    with huggingface_hub.get_session().stream("GET", address.url) as response:
        parts = response.iter_raw()  # the connection is closed when this goes
        received = bytearray(next(parts))
        socket = body.socket_of(response)
        assert socket is not None, (
            f"{type(response).__module__} gives no socket for a large body any more, so that all "
            "bodies come through the client; see the docstring of relex_merge.hub.body"
        )
        rest = memoryview(bytearray(len(CONTENT) - len(received)))
        while rest:
            count = socket.recv_into(rest)
            assert count, "the client has kept bytes back that it had read"
            received += rest[:count]
            rest = rest[count:]
    assert received == CONTENT


def test_a_large_body_comes_from_the_socket(file: RemoteFile) -> None:
    by_client: list[int] = []

    def counted(parts: Iterable[bytes]) -> Iterator[bytes]:
        for part in parts:
            by_client.append(len(part))
            yield part

    with client(in_parts(counted)):
        data, span = read(Connections(), file)
    assert data == CONTENT
    assert span.start == span.stop
    assert not span.by_client
    assert 0 < sum(by_client) < LARGE


def test_a_client_that_keeps_bytes_back_costs_time_and_no_byte(
    file: RemoteFile, no_waiting: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def halved(parts: Iterable[bytes]) -> Iterator[bytes]:
        for part in parts:
            yield part[: len(part) // 2]
            yield part[len(part) // 2 :]

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    with client(in_parts(halved)):
        data, span = read(Connections(), file)
    assert data == CONTENT
    assert span.by_client


def test_what_came_from_the_socket_of_a_body_that_broke_is_asked_for_again(
    file: RemoteFile, hub: Hub, no_waiting: list[float]
) -> None:
    cut = LARGE + 1000
    hub.faults.add(Fault("GET /cdn/", cut_after=cut))
    data, span = read(Connections(), file)
    assert data == CONTENT
    assert span.by_client
    first, second = hub.requests("GET /cdn/")
    assert first.sent == cut
    start = int((second.range or "").removeprefix("bytes=").partition("-")[0])
    assert 0 < start < LARGE


def test_a_client_without_sockets_of_its_own_will_do(file: RemoteFile) -> None:
    """Whoever sets a client of another transport for huggingface_hub gets it here too."""

    def without(response: Any) -> Any:
        response.extensions.pop("network_stream")
        return response

    with client(without):
        data, _ = read(Connections(), file)
    assert data == CONTENT


def test_an_empty_or_short_body_is_a_cut_connection(hub: Hub, file: RemoteFile) -> None:
    with pytest.raises(ConnectionError):
        Span(0, 1, deque([memoryview(bytearray(1))])).fill(lambda into: 0)


def test_a_stopped_run_ends_a_body_under_way(file: RemoteFile, hub: Hub) -> None:
    connections = Connections()
    reason = RelexError("that was all")
    hub.faults.add(Fault("GET /cdn/", action=lambda: connections.stop(reason)))
    with pytest.raises(RelexError, match="that was all"):
        read(connections, file)
