"""The record of every request that the test Hub answered."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass
class Entry:
    """One request and its answer. Tokens are not kept, only whether one was sent.

    `line` is "METHOD /decoded/path?query". `route` names the endpoint (`resolve`, `cdn`, `commit`,
    `lfs_put`, ...; "" when there is none). `repo`, `revision` (as the client wrote it) and `file`
    come from the path, `commit` is the sha that the revision stood for. `sent` and `received`
    count bytes of bodies. `started` and `finished` are seconds on the monotonic clock; `finished`
    is 0 while the answer is on its way.
    """

    number: int
    method: str
    path: str
    query: str
    headers: Mapping[str, str]  # names in lower case, without authorization
    has_token: bool
    route: str = ""
    repo: str | None = None
    revision: str | None = None
    commit: str | None = None
    file: str | None = None
    status: int = 0
    sent: int = 0
    received: int = 0
    started: float = field(default_factory=time.monotonic)
    finished: float = 0.0

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}" + (f"?{self.query}" if self.query else "")

    @property
    def range(self) -> str | None:
        return self.headers.get("range")

    @property
    def user_agent(self) -> str:
        return self.headers.get("user-agent", "")


Match = str | Callable[[Entry], bool] | None


class Log:
    """Entries in the order of arrival."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._total = 0
        self._idle = threading.Condition()

    def begin(
        self, method: str, path: str, query: str, headers: Mapping[str, str], token: str | None
    ) -> Entry:
        with self._idle:
            self._total += 1
            entry = Entry(self._total, method, path, query, headers, token is not None)
            self._entries.append(entry)
        return entry

    def end(self, entry: Entry) -> None:
        with self._idle:
            entry.finished = time.monotonic()
            self._idle.notify_all()

    def clear(self) -> None:
        self.settle()
        with self._idle:
            self._entries.clear()

    def settle(self, seconds: float = 2.0) -> None:
        """Wait until no answer is on its way: a client has the last byte before we log it."""
        with self._idle:
            self._idle.wait_for(lambda: all(e.finished for e in self._entries), timeout=seconds)

    def entries(self, match: Match = None) -> list[Entry]:
        """The entries whose `line` contains the regular expression, or that fit the predicate."""
        self.settle()
        entries = self.entries_now()
        if match is None:
            return entries
        if callable(match):
            return [entry for entry in entries if match(entry)]
        return [entry for entry in entries if re.search(match, entry.line)]

    def entries_now(self) -> list[Entry]:
        """All entries, without waiting for answers that are on their way."""
        with self._idle:
            return list(self._entries)

    def bytes_sent(self, match: Match = None) -> int:
        return sum(entry.sent for entry in self.entries(match))

    def most_at_once(self, match: Match = None) -> int:
        """The largest number of matching requests that were being answered at the same moment."""
        now = time.monotonic()
        edges = [
            edge
            for entry in self.entries(match)
            for edge in ((entry.started, 1), (entry.finished or now, -1))
        ]
        level = highest = 0
        for _, step in sorted(edges):
            level += step
            highest = max(highest, level)
        return highest
