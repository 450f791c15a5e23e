"""Headers of safetensors files: nothing is accepted that the format's own library refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.endurance.campaign import Bench, Campaign, Trial
from tests.support.header_judge import SLOWEST, judge_header
from tests.support.header_mutations import mutated_file


@contextmanager
def _open(bench: Bench) -> Iterator[Trial]:
    path = bench.folder / "model.safetensors"

    def trial(number: int) -> None:
        name, content = mutated_file(bench.seed, number)
        judge_header(name, content, path)

    trial(0)  # imports
    yield trial


CAMPAIGN = Campaign("headers", "mutated safetensors headers", 10_000, _open, slowest=SLOWEST)
