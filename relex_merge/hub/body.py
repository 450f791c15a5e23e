"""The body of an answer, received bit by bit into the buffers that it is meant for.

The client takes a body apart in Python, 64 kB and three copies at a time. For a large one that
costs as much processor time as all the arithmetic on its numbers, and doubles the time of a run
from a fast Hub (``python -m tests.benchmarks.stream``). So once the client has read the head of
such an answer, the rest is received from the connection's socket right into the buffers.

This relies on something that the client does not promise: that with the first part of a body it
hands over all that it has read. Were some bytes withheld, as many would be missing at the end. So
a body that is complete is right; of one that breaks off, what came from the socket does not count,
and is asked for again through the client.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LARGE = 2**20  # bytes; a body at least as long is worth a connection of its own


@dataclass
class Span:
    """Bytes [start, stop) of a file and the buffers that they fill, front to back.

    Attributes:
        start: moves on as bytes come in.
        stop: where the span ends.
        views: what is left to fill: stop - start bytes.
        by_client: whether nothing more is received from a socket.
    """

    start: int
    stop: int
    views: deque[memoryview]
    by_client: bool = False

    def take(self, chunk: bytes) -> None:
        """Put the next bytes of the file into the buffers."""
        rest = memoryview(chunk)
        while rest and self.views:
            count = min(len(rest), len(self.views[0]))
            self.views[0][:count] = rest[:count]
            self._move(count)
            rest = rest[count:]

    def fill(self, receive: Callable[[memoryview], int]) -> None:
        """Fill the buffers.

        Args:
            receive: puts some bytes in front of a buffer and returns how many.

        Raises:
            ConnectionError: it has none left.
        """
        while self.views:
            count = receive(self.views[0])
            if not count:
                raise ConnectionError(_CUT)
            self._move(count)

    def _move(self, count: int) -> None:
        self.start += count
        self.views[0] = self.views[0][count:]
        if not self.views[0]:
            self.views.popleft()


_CUT = "the connection was cut"


def receive_body(response: Any, span: Span, check: Callable[[], None]) -> None:
    """Fill a span from the answer to the request for its bytes.

    Args:
        response: the client's, its body not yet touched.
        span: moves on as far as bytes have come that count.
        check: called before each bit; it may raise.

    Raises:
        OSError: the connection broke; or the client's own error.
    """
    chunks = response.iter_raw()
    check()
    span.take(next(chunks, b""))
    socket = None if span.by_client else socket_of(response)
    if socket is not None:
        _from_socket(socket, span, check)
    for chunk in chunks if span.views else ():
        check()
        span.take(chunk)
    if span.views:
        raise ConnectionError(_CUT)


def _from_socket(socket: Any, span: Span, check: Callable[[], None]) -> None:
    """Fill the whole rest of a span; when that fails, the span is as it was before."""
    start, views = span.start, list(span.views)

    def receive(into: memoryview) -> int:
        check()
        return int(socket.recv_into(into))

    try:
        span.fill(receive)
    except BaseException:
        span.start, span.views, span.by_client = start, deque(views), True
        raise


def socket_of(response: Any) -> Any:
    """Return the socket that the rest of a large body can be received from as it is, or None.

    The first part of the body must have been taken. The connection cannot be used again afterwards,
    which a short body is not worth.
    """
    stream = response.extensions.get("network_stream")
    if (
        stream is None
        or response.http_version != "HTTP/1.1"
        or int(response.headers.get("content-length", 0)) < LARGE
        or isinstance(stream.get_extra_info("ssl_object"), ssl.SSLObject)  # TLS within TLS
    ):
        return None
    return stream.get_extra_info("socket")
