"""KL on response tokens, against a direct computation on explicit logits in float64."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from relex_merge.errors import RelexError
from relex_merge.evaluation import divergence as module
from relex_merge.evaluation.divergence import divergence, reference
from relex_merge.evaluation.estimates import ClusteredSums, skill
from relex_merge.evaluation.tokens import Item

ITEMS = [
    Item((5, 6, 7), (8, 9, 10, 11), 0, "p:1"),
    Item((5, 6, 7), (40,), 0, "p:1"),
    Item((12,), (13, 14, 15, 16, 17, 18, 19, 20), 1, "p:2"),
    Item((21, 22, 23, 24, 25, 26), (27, 28), 2, "p:3"),
]


class Table(nn.Module):
    """A language model whose logits are rows of a table, looked up by the token before.

    It takes no ``logits_to_keep``, as some models do not. hungry: the batch at which it asks for
    an exabyte.
    """

    def __init__(self, logits: torch.Tensor, hungry: int = 10**6) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.hungry = hungry
        self.largest = 0

    device = torch.device("cpu")

    def forward(self, input_ids: torch.Tensor, **_: object) -> Any:
        if len(input_ids) >= self.hungry:
            torch.empty(2**58)
        self.largest = max(self.largest, len(input_ids))
        return SimpleNamespace(logits=self.logits[input_ids])


def _direct(last: Any, other: Any, items: Sequence[Item]) -> ClusteredSums:
    """Σ KL by the definition, one sequence at a time, no padding, everything in float64."""
    clusters = sorted({item.cluster for item in items})
    totals, counts = np.zeros(len(clusters)), np.zeros(len(clusters))
    for item in items:
        ids = torch.tensor([item.prompt + item.response])
        with torch.inference_mode():
            log_p = torch.log_softmax(last(ids).logits[0].double(), -1)
            log_q = torch.log_softmax(other(ids).logits[0].double(), -1)
        span = slice(len(item.prompt) - 1, ids.shape[1] - 1)
        kl = (log_p.exp() * (log_p - log_q)).sum(-1)[span]
        totals[item.cluster] += float(kl.sum())
        counts[item.cluster] += len(kl)
    return ClusteredSums(totals, counts)


def _measure(last: Any, other: Any, items: Sequence[Item], **how: Any) -> ClusteredSums:
    with reference(last, items, name="last", **how) as known:
        assert known.tokens == sum(len(item.response) for item in items)
        return divergence(known, other, name="other")


def _agree(found: ClusteredSums, direct: ClusteredSums, rel: float = 1e-5) -> None:
    assert found.counts == pytest.approx(direct.counts)
    assert found.totals == pytest.approx(direct.totals, rel=rel, abs=1e-9)


def test_a_hand_made_case() -> None:
    """Two tokens, p = (1/2, 1/2), q = (1/4, 3/4): KL = ½ ln 2 + ½ ln ⅔ for each token."""
    last = Table(torch.zeros(2, 2))
    other = Table(torch.tensor([[0.0, np.log(3.0)]] * 2))
    found = _measure(last, other, [Item((0,), (1, 1, 0), 0, ""), Item((1,), (0,), 1, "")])
    kl = 0.5 * np.log(2) + 0.5 * np.log(2 / 3)
    assert found.totals == pytest.approx([3 * kl, kl], rel=1e-6)
    assert found.mean().value == pytest.approx(kl, rel=1e-6)
    assert found.mean().stderr == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_a_tiny_qwen2_agrees_with_the_definition(base: Any, last: Any, batch_size: int) -> None:
    found = _measure(last, base, ITEMS, batch_size=batch_size)
    direct = _direct(last, base, ITEMS)
    assert direct.mean().value > 1e-5
    _agree(found, direct)


def test_models_without_logits_to_keep_agree_too() -> None:
    torch.manual_seed(0)
    last, other = Table(torch.randn(64, 64)), Table(torch.randn(64, 64))
    _agree(_measure(last, other, ITEMS), _direct(last, other, ITEMS))


def test_a_model_diverges_from_itself_by_nothing(last: Any) -> None:
    assert _measure(last, last, ITEMS, batch_size=1).totals == pytest.approx(np.zeros(3), abs=0)


def test_divergences_far_below_float32s_resolution_are_right() -> None:
    """Σ p (log p − log q) in float32 would be lost in the rounding of the normalisation."""
    torch.manual_seed(0)
    logits = torch.randn(64, 64)
    last, other = Table(logits), Table(logits + 1e-4 * torch.randn(64, 64))
    found, direct = _measure(last, other, ITEMS), _direct(last, other, ITEMS)
    assert direct.mean().value < 1e-8
    assert found.totals == pytest.approx(direct.totals, rel=0.02)


def test_what_the_last_checkpoint_rules_out_may_be_certain_elsewhere() -> None:
    """P vanishes in float32 where q is 1, and the other way round."""
    last = Table(torch.tensor([[0.0, -300.0], [0.0, -300.0]]))
    other = Table(torch.tensor([[-300.0, 0.0], [-300.0, 0.0]]))
    found = _measure(last, other, [Item((0,), (1,), 0, "")])
    assert found.totals == pytest.approx([300.0], rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 30), st.integers(1, 5))
def test_divergence_is_never_negative_whatever_the_batch(
    seed: int, scale: float, batch_size: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    last = Table(scale * torch.randn(64, 64, generator=rng))
    other = Table(last.logits.detach() + scale * torch.randn(64, 64, generator=rng))
    found = _measure(last, other, ITEMS, batch_size=batch_size)
    assert (found.totals >= 0).all()
    _agree(found, _direct(last, other, ITEMS), rel=1e-4)


def test_skill_of_a_prediction_against_the_definition(base: Any, last: Any, series: Any) -> None:
    from tests.evaluation.conftest import load

    held, predicted = load(series.checkpoints[2]), load(series.checkpoints[3])
    with reference(last, ITEMS, name="last") as known:
        found = skill(
            divergence(known, predicted, name="predicted"), divergence(known, held, name="held")
        )
    truth = 1 - (
        _direct(last, predicted, ITEMS).mean().value / _direct(last, held, ITEMS).mean().value
    )
    assert found is not None
    assert found.value == pytest.approx(truth, rel=1e-4)
    assert 0 < truth < 1


def test_log_probabilities_above_the_budget_go_to_a_file_that_vanishes(
    base: Any, last: Any, tmp_path: Path
) -> None:
    with reference(last, ITEMS, name="last", in_memory=100, scratch=tmp_path) as known:
        in_file = divergence(known, base, name="base")
    assert not list(tmp_path.iterdir())
    assert in_file.totals == pytest.approx(_measure(last, base, ITEMS).totals, abs=0)


def test_no_room_for_the_file(last: Any, tmp_path: Path) -> None:
    with (
        pytest.raises(RelexError, match=r"no room for 3\.84 kB of log-probabilities in .*absent"),
        reference(last, ITEMS, name="last", in_memory=100, scratch=tmp_path / "absent"),
    ):
        pass


def test_chunks_bound_what_is_in_memory_at_once(
    base: Any, last: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _measure(last, base, ITEMS)
    monkeypatch.setattr(module, "CPU_CHUNK", 100)
    assert _measure(last, base, ITEMS).totals == pytest.approx(whole.totals, rel=1e-9)


def test_logits_of_a_pass_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that runs out of memory kills the process instead of telling it."""
    last = Table(torch.randn(64, 64))
    longest = max(len(item.prompt) + len(item.response) for item in ITEMS)
    monkeypatch.setattr(module, "LOGITS", 2 * longest * 64 * 4)
    _measure(last, last, ITEMS)
    assert last.largest == 2


def test_batches_shrink_where_memory_runs_out() -> None:
    torch.manual_seed(0)
    logits = torch.randn(64, 64)
    last, other = Table(logits), Table(logits + 0.1, hungry=3)
    found = _measure(last, other, ITEMS, batch_size=4)
    assert other.largest == 2
    _agree(found, _direct(last, other, ITEMS))
    with pytest.raises(RelexError, match="other: out of memory with one sequence"):
        _measure(last, Table(logits, hungry=1), ITEMS)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_name_model_and_line(base: Any, last: Any, bad: float) -> None:
    broken = copy.deepcopy(base)
    with torch.no_grad():
        broken.model.norm.weight[0] = bad
    with pytest.raises(RelexError, match="other gives NaN or infinite logits on p:"):
        _measure(last, broken, ITEMS)
    with pytest.raises(RelexError, match="last gives NaN or infinite logits on p:"):
        _measure(broken, last, ITEMS)


def test_models_of_other_vocabularies_cannot_be_compared(last: Any) -> None:
    with pytest.raises(RelexError, match=r"other has a vocabulary of 70 .* last one of 64"):
        _measure(last, Table(torch.zeros(70, 70)), ITEMS)
