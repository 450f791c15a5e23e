"""The fsspec file system behind an address, and its first answer.

Credentials, endpoints, proxies and whatever else can be set are those of fsspec and of the library
behind it (s3fs, gcsfs, huggingface_hub): environment, configuration files, instance roles.
"""

from __future__ import annotations

import difflib
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from relex_merge.errors import RelexError, pip_line
from relex_merge.places.address import normal, protocol_of
from relex_merge.places.errors import is_transient, patiently, place_errors

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

T = TypeVar("T")

FIRST_ANSWER = 8.0  # seconds; a place that says nothing for so long is away
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}  # protocol → extra of this package
_COMMON = "s3, gs, hf (hf://buckets/owner/name), abfs, memory and file"
_answered: weakref.WeakSet[Any] = weakref.WeakSet()


@dataclass(frozen=True)
class Place:
    """A folder that fsspec can reach.

    Attributes:
        address: as the user wrote it, without slashes at its end.
        files: its file system.
        path: the folder, as the file system names it.
    """

    address: str
    files: AbstractFileSystem
    path: str

    @property
    def store(self) -> str:
        """What holds it, for messages: ``s3://bucket``."""
        head, _, path = self.address.partition("://")
        parts = path.split("/")
        root = "/".join(parts[:3] if head == "hf" else parts[:1])
        return f"{head}://{root}"

    def below(self, name: str) -> str:
        """Return the file system's path of something in the folder."""
        return f"{self.path.rstrip('/')}/{name}"

    def ask(self, call: Callable[[], T], doing: str = "read") -> T:
        """Return the result of a request, which is repeated as :func:`patiently` does.

        The first one of a file system must be answered within ``FIRST_ANSWER``, so that a network
        that is away is told at once.

        Args:
            call: the request, safe to repeat.
            doing: "read" or "written", for the message.

        Raises:
            RelexError: the place cannot be reached, or refuses.
            FileNotFoundError: there is no such thing.
        """
        try:
            with place_errors(self.address, doing):
                return self._asked(call)
        except RelexError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise error.__cause__ from None
            raise

    def _asked(self, call: Callable[[], T]) -> T:
        if self.files in _answered:
            return patiently(call, self.address)
        try:
            found = within(FIRST_ANSWER, call)
        except Exception as error:
            if not is_transient(error):
                _answered.add(self.files)
            raise
        _answered.add(self.files)
        return found


def open_place(address: str) -> Place:
    """Return the place at an address; nothing is asked of it yet.

    Raises:
        RelexError: the protocol is unknown, its library is not installed, or it names no folder.
    """
    address = normal(address)
    protocol = protocol_of(address)
    if protocol in ("http", "https"):
        raise RelexError(
            f"{address} is a web address, of which no folder can be listed; a model on the Hub is "
            "written owner/name[@revision]"
        )
    if protocol == "hf" and not address.startswith("hf://buckets/"):
        raise RelexError(
            f"{address}: hf:// is for buckets, hf://buckets/owner/name/folder; a model on the Hub "
            "is written owner/name[/folder][@revision]"
        )
    if protocol == "hf":
        _require_buckets(address)
    from fsspec.core import url_to_fs

    try:
        with place_errors(address):
            files, path = url_to_fs(address)
    except ImportError as error:
        raise RelexError(f"{address}: {_missing(protocol, error)}") from error
    except ValueError as error:
        raise RelexError(f"{address}: {_unknown(protocol, error)}") from error
    return Place(address, files, path)


def _require_buckets(address: str) -> None:
    from huggingface_hub import HfApi

    if not hasattr(HfApi, "bucket_info"):
        raise RelexError(
            f"{address}: this huggingface_hub knows no buckets; pip install -U huggingface_hub"
        )


def _missing(protocol: str, error: ImportError) -> str:
    extra = _EXTRAS.get(protocol)
    if extra:
        return f"to read it: {pip_line(extra)}"
    return f"its library is not installed ({error}); install it with pip"


def _unknown(protocol: str, error: ValueError) -> str:
    from fsspec import available_protocols

    known = available_protocols()
    if protocol in known:
        return f"fsspec cannot read it ({error})"
    near = difflib.get_close_matches(protocol, known, n=1)
    meant = f" (did you mean {near[0]}://?)" if near else ""
    return f"no place is called {protocol}://{meant}; known are {_COMMON}, and what fsspec lists"


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return the result of ``call``, or raise TimeoutError; it may go on behind the scenes."""
    results: list[T] = []
    faults: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            faults.append(error)

    thread = threading.Thread(target=work, name="relex-first-answer", daemon=True)
    thread.start()
    thread.join(seconds)
    if faults:
        raise faults[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return results[0]
