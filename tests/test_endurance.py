"""The endurance suite is ready to be run: each campaign passes two of its cases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.endurance.all import CAMPAIGNS
from tests.endurance.campaign import Bench, Campaign, Trial, UnavailableError
from tests.endurance.trying import table, try_cases


@pytest.mark.parametrize("campaign", CAMPAIGNS, ids=lambda campaign: campaign.name)
def test_two_cases_of_every_campaign(
    campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    row = try_cases(campaign, Bench(0, tmp_path, quick=True), range(2))
    if row.skipped:
        pytest.skip(row.skipped)
    assert row.failures == []
    assert row.tried == 2


@contextmanager
def odd_ones_fail(bench: Bench) -> Iterator[Trial]:
    def trial(number: int) -> None:
        assert number % 2 == 0, "an odd number"

    yield trial


@contextmanager
def without_means(bench: Bench) -> Iterator[Trial]:
    raise UnavailableError("no means")
    yield


def test_a_failure_is_told_with_what_repeats_it(tmp_path: Path) -> None:
    odd = Campaign("odd", "numbers", 4, odd_ones_fail)
    row = try_cases(odd, Bench(7, tmp_path), range(4))
    assert row.tried == 4
    assert [failure.partition(": ")[0] for failure in row.failures] == [
        "--only odd --seed 7 --case 1",
        "--only odd --seed 7 --case 3",
    ]
    skipped = try_cases(Campaign("none", "x", 4, without_means), Bench(7, tmp_path), range(4))
    lines = table([row, skipped]).splitlines()
    assert lines[1].split()[:3] == ["odd", "4", "2"]
    assert "skipped: no means" in lines[2]
