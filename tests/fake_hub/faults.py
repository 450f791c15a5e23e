"""Faults that a test injects into the Hub's answers, and actions that it hooks onto requests."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.fake_hub.log import Entry


@dataclass
class Fault:
    """What happens to the requests that match.

    Attributes:
        match: a regular expression searched in "METHOD /decoded/path?query", or a predicate on the
            log entry (method, path, headers, range ... are known; the answer is not).
        times: how many matching requests are hit; None for all.
        after: how many matching requests pass unharmed first.
        status: answer this instead of serving the request.
        message, code, headers: of that answer (`X-Error-Message`, `X-Error-Code`, further ones).
        cut_after: close the connection after this many bytes of the body; the headers promise all.
        drop: close the connection without an answer, "before" or "after" the request took effect.
        resize: serve a file as if it had this many bytes (cut short, or continued with zeros).
        delay: wait this many seconds before answering.
        action: called before the request is served (move a branch, expire the signed URLs ...).
    """

    match: str | Callable[[Entry], bool]
    times: int | None = 1
    after: int = 0
    status: int | None = None
    message: str = "injected fault"
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    drop: Literal["before", "after"] | None = None
    resize: int | None = None
    delay: float = 0.0
    action: Callable[[], object] | None = None
    seen: int = field(default=0, init=False)  # matching requests so far
    fired: int = field(default=0, init=False)  # of these, how many were hit

    def matches(self, entry: Entry) -> bool:
        if callable(self.match):
            return self.match(entry)
        return re.search(self.match, entry.line) is not None


class Faults:
    """The faults in force."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """Put a fault in force; returns it, so that a test can look at `fault.fired` later."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def hitting(self, entry: Entry) -> list[Fault]:
        """The faults that hit this request; counts it for each that matches."""
        hit = []
        with self._lock:
            for fault in self._faults:
                if not fault.matches(entry):
                    continue
                fault.seen += 1
                spent = fault.times is not None and fault.fired >= fault.times
                if fault.seen > fault.after and not spent:
                    fault.fired += 1
                    hit.append(fault)
        return hit
