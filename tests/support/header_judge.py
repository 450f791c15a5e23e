"""What must hold of every safetensors file, whole or broken: the format's own library decides."""

from __future__ import annotations

import time
from pathlib import Path

from safetensors import SafetensorError, safe_open

from relex_merge.errors import RelexError
from relex_merge.weights.folder import open_folder

SLOWEST = 1.0  # seconds of processor time for one file
# What this package refuses although the library accepts it: keys that the format does not know,
# names that occur twice, spaces before the header, more dimensions than torch has, and dtypes that
# no arithmetic is done in. Everything else that is accepted must be taken.
STRICTER = (
    "other properties than",
    "occurs twice",
    "does not begin with",
    "dimensions",
    "packed or quantized",
)


def judge_header(name: str, content: bytes, path: Path) -> bool:
    """Open a file and compare the outcome with the library's; returns whether it was accepted.

    Args:
        name: of the case, for the message.
        content: of the file.
        path: where it is written, as ``model.safetensors`` in a folder of its own.

    Raises:
        AssertionError: it was accepted and the library refuses it, refused without a reason that
            names it, refused although it is good, or took too long.
    """
    path.write_bytes(content)
    start = time.process_time()
    said = None
    try:
        open_folder(path.parent, "the model")
    except RelexError as error:
        said = str(error)
    assert time.process_time() - start < SLOWEST, f"{name}: too slow"
    accepted = _library_accepts(path)
    if said is None:
        assert accepted, f"{name}: accepted, and the library refuses it"
        return True
    assert str(path) in said or "packed or quantized" in said, name
    assert len(said) < 1000, name
    assert said.isprintable(), name
    assert not accepted or any(word in said for word in STRICTER), f"{name}: {said}"
    return False


def _library_accepts(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # no mapping
                file.get_slice(name).get_shape()
    except (SafetensorError, OSError):
        return False
    return True
