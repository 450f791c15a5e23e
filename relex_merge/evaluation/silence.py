"""One display at a time: other libraries' bars and remarks are hidden while there is one."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec


@contextmanager
def one_display(*, quiet: bool) -> Iterator[None]:
    """Hide the bars of transformers and datasets, and when quiet their warnings too.

    Everything is as it was afterwards.

    Args:
        quiet: whether nothing but results and errors is to be seen.
    """
    from transformers.utils import logging as transformers_logging

    bars = transformers_logging.is_progress_bar_enabled()
    level = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    if quiet:
        transformers_logging.set_verbosity_error()
    try:
        with _datasets_without_bars():
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def _datasets_without_bars() -> Iterator[None]:
    """Hide the bars of datasets, which lm-eval brings with it."""
    if find_spec("datasets") is None:
        yield
        return
    from datasets import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


@contextmanager
def silent_lm_eval() -> Iterator[None]:
    """Hide what lm-eval says: it has a bar for every call and warns of every setting it is given.

    Some of its bars have no switch, so what it prints is dropped; errors are raised as ever.
    """
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
