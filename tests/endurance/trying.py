"""Trying the cases of a campaign: timed, counted, and each failure told with what repeats it."""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tqdm import tqdm

from tests.endurance.campaign import Bench, Campaign, Trial, UnavailableError

_MESSAGE = 600  # characters of a failure that are shown


class TooLongError(Exception):
    """A case took longer than a campaign has patience, as if it would never end."""


@dataclass
class Row:
    """A campaign in the table.

    Attributes:
        name: of the campaign.
        about: what was tried.
        tried: cases.
        failures: one line for each, with the arguments that repeat it.
        slowest: wall seconds of the slowest case.
        seconds: wall seconds of all, with the preparation.
        skipped: why nothing was tried, "" otherwise.
    """

    name: str
    about: str
    tried: int = 0
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    seconds: float = 0.0
    skipped: str = ""


def try_cases(
    campaign: Campaign, bench: Bench, numbers: Sequence[int], *, details: bool = False
) -> Row:
    """Try the cases of these numbers.

    Args:
        campaign: the campaign.
        bench: seed and folder.
        numbers: of the cases.
        details: whether a failure is shown with its traceback.

    Returns:
        What came of it.
    """
    row = Row(campaign.name, campaign.about)
    start = time.monotonic()
    try:
        with campaign.open(bench) as trial:
            for number in tqdm(numbers, campaign.name, unit="case", disable=None, leave=False):
                _try(campaign, bench.seed, trial, number, row, details)
    except UnavailableError as reason:
        row.skipped = str(reason)
    row.seconds = time.monotonic() - start
    return row


def _try(campaign: Campaign, seed: int, trial: Trial, number: int, row: Row, details: bool) -> None:
    start, processor = time.monotonic(), time.process_time()
    fault: str | None = None
    try:
        with _hurry(campaign.patience):
            trial(number)
    except UnavailableError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        fault = f"{type(error).__name__}: {text[:_MESSAGE]}"
        if details:
            tqdm.write(traceback.format_exc(), file=sys.stderr)
    spent = time.process_time() - processor
    if fault is None and campaign.slowest is not None and spent > campaign.slowest:
        fault = f"took {spent:.2f} s of processor time, more than {campaign.slowest:g}"
    row.tried += 1
    row.slowest = max(row.slowest, time.monotonic() - start)
    if fault is not None:
        row.failures.append(f"--only {campaign.name} --seed {seed} --case {number}: {fault}")
        tqdm.write(f"FAILED {row.failures[-1]}", file=sys.stderr)


@contextmanager
def _hurry(seconds: float) -> Iterator[None]:
    """Raise TooLongError in what takes longer than so many seconds."""

    def late(*_: object) -> None:
        raise TooLongError(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def table(rows: Iterable[Row]) -> str:
    """Return one line a campaign: cases tried, failures, slowest case, seconds in all."""
    lines = [f"{'campaign':<13}{'tried':>7}{'failures':>10}{'slowest s':>11}{'seconds':>9}  what"]
    for row in rows:
        about = f"skipped: {row.skipped}" if row.skipped else row.about
        lines.append(
            f"{row.name:<13}{row.tried:>7,}{len(row.failures):>10}{row.slowest:>11.2f}"
            f"{row.seconds:>9.1f}  {about}"
        )
    return "\n".join(lines)
