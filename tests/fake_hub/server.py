"""The HTTP side of the test Hub, and `Hub`, the object that tests hold.

Two ports are open: the Hub's own, and that of the "CDN" to which files stored with LFS are
redirected. They are different origins, as on the real Hub, so that a client stops at the redirect
and must not send its token along.
"""

from __future__ import annotations

import socket
import threading
import time
import traceback
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.fake_hub import (  # noqa: F401  (they register endpoints)
    api,
    buckets,
    content,
    listing,
    upload,
)
from tests.fake_hub.access import Token
from tests.fake_hub.building import Building
from tests.fake_hub.content import Signer
from tests.fake_hub.faults import Fault, Faults
from tests.fake_hub.log import Entry, Log, Match
from tests.fake_hub.messages import HubError, Reply, Request, dispatch
from tests.fake_hub.store import File

_COALESCE = 64 << 10  # bytes: smaller bodies go out in one packet with the headers


class Hub(Building):
    """A Hugging Face Hub on 127.0.0.1.

    Attributes:
        url: the endpoint, for `HF_ENDPOINT`.
        repos: repo id -> `Repo`; `tokens`: value -> `Token`.
        log: every request that was answered; `faults`: what goes wrong on purpose.
        crashes: tracebacks of bugs in the test Hub or in a fault's action; must stay empty.
        page_size: entries per page of a tree; `commits_page_size` of a list of commits.
        url_lifetime: seconds for which a signed download URL is good.
        tells_blobs: whether sizes and ids of files are told; some servers do not.
        multipart_size: larger uploads come in parts of this many bytes; None for never.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(folder)
        self.log = Log()
        self.faults = Faults()
        self.is_away = False
        self._door = threading.Lock()
        self._listeners = (_Listener(self, port or _free_port()), _Listener(self, _free_port()))
        self.url, self.cdn_url = (
            f"http://127.0.0.1:{listener.server_address[1]}" for listener in self._listeners
        )
        self.reset()

    def reset(self) -> None:
        """Back to an empty Hub with default settings and the two default tokens."""
        self.come_back()
        self.faults.clear()
        self.log.clear()
        self.empty()
        self.crashes: list[str] = []
        self.page_size = 1000
        self.commits_page_size = 50
        self.url_lifetime = 3600.0
        self.multipart_size: int | None = None
        self.tells_blobs = True
        self.signer = Signer()

    def start(self) -> Hub:
        for listener in self._listeners:
            threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        for listener in self._listeners:
            listener.shutdown()
            listener.server_close()

    def go_away(self) -> None:
        """Refuse connections and cut those that are open; the ports stay ours."""
        with self._door:
            self.is_away = True
            for listener in self._listeners:
                listener.shutdown()
                listener.socket.shutdown(socket.SHUT_RDWR)

    def come_back(self) -> None:
        """Accept connections again, if they are refused."""
        with self._door:
            if self.is_away:
                for listener in self._listeners:
                    listener.server_activate()
                self.is_away = False
                self.start()

    def env(self, home: Path, token: Token | str | None = None) -> dict[str, str]:
        """Environment variables for a client in another process; add them to `os.environ`."""
        variables = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        if token is not None:
            variables["HF_TOKEN"] = token if isinstance(token, str) else token.value
        return variables

    def after(self, requests: int, match: str, action: Any) -> Fault:
        """Call `action()` before the request that follows the first `requests` matching ones."""
        return self.faults.add(Fault(match, after=requests, action=action))

    def expire_urls(self) -> None:
        """Make every download URL signed so far answer 403 from now on."""
        self.signer = Signer()

    def requests(self, match: Match = None) -> list[Entry]:
        """What was asked so far: `hub.requests("POST .*/commit/")`; see `log.Entry`."""
        return self.log.entries(match)


def _free_port() -> int:
    """A port that is asked for by its number stays the listener's own while it does not listen."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, hub: Hub, port: int) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients go away in the middle of answers; that is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def _answer(self) -> None:
        hub = self.server.hub
        target, query = urlsplit(self.path).path, urlsplit(self.path).query
        headers = {name.lower(): value for name, value in self.headers.items()}
        authorization = headers.pop("authorization", None)
        token = authorization.removeprefix("Bearer ") if authorization is not None else None
        entry = hub.log.begin(self.command, unquote(target), unquote(query), headers, token)
        request = Request(entry, target, query, self.rfile, token)
        try:
            self._exchange(hub, request)
        except OSError:  # the client went away, or the file that was being served
            self.close_connection = True
        except Exception:
            hub.crashes.append(traceback.format_exc())
            self.close_connection = True
        finally:
            hub.log.end(entry)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

    def _exchange(self, hub: Hub, request: Request) -> None:
        entry = request.entry
        if hub.is_away:
            self._hang_up()
            return
        faults = hub.faults.hitting(entry)
        time.sleep(sum(fault.delay for fault in faults))
        for fault in faults:
            if fault.action is not None:
                fault.action()
            if fault.resize is not None:
                request.resize = fault.resize
        if any(fault.drop == "before" for fault in faults):
            request.drain()
            self._hang_up()
            return
        reply = _injected(faults) or _reply(hub, request)
        request.drain()
        entry.status = reply.status
        if any(fault.drop == "after" for fault in faults):
            self._hang_up()
            return
        if hub.is_away:
            self._hang_up()
            return
        cuts = [fault.cut_after for fault in faults if fault.cut_after is not None]
        self._send(entry, reply, min(cuts, default=None))

    def _send(self, entry: Entry, reply: Reply, cut: int | None) -> None:
        headers = {"Content-Length": str(reply.length), **reply.headers}
        lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Date: {self.date_time_string()}", "", ""]
        head = "\r\n".join(lines).encode("latin-1")
        length = reply.length if cut is None else min(cut, reply.length)
        if self.command == "HEAD":
            self.connection.sendall(head)
        elif reply.file is None:
            self.connection.sendall(head + reply.body[:length])
            entry.sent = length
        elif reply.file.path is None and length <= _COALESCE:
            self.connection.sendall(head + _padded(reply.file, reply.start, reply.start + length))
            entry.sent = length
        else:
            self.connection.sendall(head)
            self._send_file(entry, reply.file, reply.start, reply.start + length)
        if cut is not None or (self.command != "HEAD" and entry.sent < length):
            self._hang_up()

    def _send_file(self, entry: Entry, file: File, start: int, stop: int) -> None:
        inside = max(min(stop, file.size) - start, 0)
        if file.path is None:
            assert file.data is not None
            self.connection.sendall(memoryview(file.data)[start : start + inside])
            entry.sent = inside
        elif inside:
            with file.path.open("rb") as stream:
                entry.sent = self.connection.sendfile(stream, start, inside)
        if entry.sent == inside and start + inside < stop:
            self.connection.sendall(bytes(stop - start - inside))
            entry.sent = stop - start

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """`Hub.log` has it."""


def _injected(faults: list[Fault]) -> Reply | None:
    for fault in faults:
        if fault.status is not None:
            return HubError(fault.status, fault.message, fault.code, fault.headers).reply()
    return None


def _reply(hub: Hub, request: Request) -> Reply:
    try:
        return dispatch(hub, request)
    except HubError as refusal:
        return refusal.reply()
    except ConnectionError:
        raise
    except Exception:
        hub.crashes.append(traceback.format_exc())
        return HubError(500, "The test Hub has a bug, see hub.crashes").reply()


def _padded(file: File, start: int, stop: int) -> bytes:
    """Bytes of a file, continued with zeros."""
    return file.read(start, stop).ljust(stop - start, b"\0")
