"""The race and the rule of choice; what is reported never enters it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from relex_merge.errors import RelexError
from relex_merge.evaluation.choice import choose_by_function, choose_by_labels
from relex_merge.evaluation.halving import FEWEST, question_blocks
from relex_merge.evaluation.measured_choice import measured_choice, report
from relex_merge.evaluation.scores import TaskScores
from relex_merge.evaluation.split import choosing_part, reported_part
from relex_merge.report.candidates import LAST, Candidate, Model
from relex_merge.report.difference import Difference
from relex_merge.report.estimate import Estimate
from relex_merge.report.functional import Function

LINE = Candidate(200)
SMALL, HALF = Candidate(200, 0.1, "last"), Candidate(200, 0.5, "last")
GRID = [LINE, *(Candidate(t, s, "last") for t in (60, 200) for s in (0.1, 0.3, 0.5, 1.0))]
GOOD = Function(Estimate(0.08, 0.01), 4.0, Estimate(0.4, 0.05))
BAD = Function(Estimate(1.2, 0.01), 4.0, Estimate(-0.4, 0.05))


class Exam:
    """Answers drawn with fixed probabilities; remembers what was asked."""

    def __init__(self, accuracy: Mapping[Model, float], questions: int, seed: int = 0) -> None:
        self.documents = {"sums": [f"{n:064x}" for n in range(questions)]}
        rng = np.random.default_rng(seed)
        luck = rng.random(questions)  # hard and easy questions, for all models alike
        own = {model: rng.random(questions) for model in accuracy}
        self.table = {
            model: {
                key: float(0.7 * luck[i] + 0.3 * own[model][i] < p)
                for i, key in enumerate(self.documents["sums"])
            }
            for model, p in accuracy.items()
        }
        self.asked: dict[Model, list[str]] = {model: [] for model in accuracy}

    def __call__(self, model: Model, task: str, documents: Sequence[str]) -> TaskScores:
        self.asked[model] += documents
        return TaskScores({key: self.table[model][key] for key in documents})


def _exam(best: Candidate, questions: int = 2000) -> Exam:
    accuracy: dict[Model, float] = {LAST: 0.5, **dict.fromkeys(GRID, 0.3), best: 0.8}
    return Exam(accuracy, questions)


def _no_function() -> dict[Candidate, Function]:
    return {}


def test_the_best_candidate_wins_at_a_fraction_of_the_price() -> None:
    best = Candidate(200, 0.3, "last")
    exam = _exam(best)
    choice, race = measured_choice(GRID, exam.documents, exam, _no_function())
    choosing = choosing_part("sums", exam.documents["sums"])
    assert choice.chosen == best
    assert sorted(exam.asked[LAST]) == sorted(choosing)
    assert sorted(exam.asked[best]) == sorted(choosing)
    assert next(iter(race.differences)) == best
    assert len(race.differences) == 2
    total = sum(len(asked) for model, asked in exam.asked.items() if model != LAST)
    assert total < 0.45 * len(GRID) * len(choosing)
    assert [len(r.models) for r in race.rounds] == [9, 5, 3, 2]
    assert race.rounds[0].questions == FEWEST
    assert race.rounds[-1].questions == len(choosing)


def test_what_is_reported_never_enters_the_choice() -> None:
    """Corrupt the reported questions: the choice, its reasons and its figures stay."""
    best = Candidate(200, 0.3, "last")
    honest, corrupt = _exam(best), _exam(best)
    for key in reported_part("sums", honest.documents["sums"]):
        for model in corrupt.table:
            corrupt.table[model][key] = float(model == LINE)
    one = measured_choice(GRID, honest.documents, honest, _no_function())
    two = measured_choice(GRID, corrupt.documents, corrupt, _no_function())
    assert one == two
    assert honest.asked == corrupt.asked
    chosen = one[0].chosen
    assert chosen is not None
    told = report([LAST, chosen, LINE], corrupt.documents, corrupt)
    assert told[LINE]["sums"].mean().value == 1.0  # and they are what is reported
    assert told[chosen]["sums"].mean().value == 0.0


def test_the_last_observed_checkpoint_stays_where_nothing_is_better() -> None:
    exam = _exam(LINE)
    exam.table[LINE] = exam.table[HALF]
    choice, _ = measured_choice(GRID, exam.documents, exam, dict.fromkeys(GRID, GOOD))
    assert choice.chosen is None
    assert "No candidate is clearly better" in choice.reasons[0]


def test_blocks_of_questions_do_not_depend_on_the_candidates() -> None:
    few, many = _exam(HALF), _exam(HALF)
    measured_choice([HALF], few.documents, few, _no_function())
    measured_choice(GRID, many.documents, many, _no_function())
    assert few.asked[LAST] == many.asked[LAST]
    blocks = question_blocks({"a": [str(n) for n in range(200)], "b": [str(n) for n in range(50)]})
    assert [sum(map(len, block.values())) for block in blocks] == pytest.approx(
        [32, 32, 64, 122], abs=2
    )
    assert [n for block in blocks for n in block["a"]] == [str(n) for n in range(200)]
    assert all("b" in block for block in blocks)


def test_tasks_too_small_to_choose_or_to_report_by() -> None:
    exam = _exam(HALF)
    every = exam.documents["sums"]
    chooses = {"sums": choosing_part("sums", every)[:1]}
    reported = {"sums": reported_part("sums", every)[:1]}
    with pytest.raises(RelexError, match="no question of these tasks falls into the quarter"):
        measured_choice([HALF], reported, exam, _no_function())
    with pytest.raises(RelexError, match="all 1 questions of sums fall into the quarter that"):
        report([LAST], chooses, exam)


def _d(mean: float, low: float, high: float) -> Difference:
    return Difference(mean, 0.01, low, high, 100)


def test_rule_1_the_largest_gain_among_the_clearly_better() -> None:
    labels = {SMALL: _d(0.1, 0.05, 0.15), LINE: _d(0.3, 0.2, 0.4), HALF: _d(0.35, -0.1, 0.6)}
    found = choose_by_labels(labels, dict.fromkeys(labels, BAD))
    assert found.chosen == LINE
    assert "step 200 is clearly better" in found.reasons[0]
    assert found.reasons[1] == "2 of 3 finalists are clearly better."


def test_rule_1_at_the_same_gain_function_decides_then_nearness() -> None:
    labels = {SMALL: _d(0.3, 0.2, 0.4), HALF: _d(0.3, 0.2, 0.4)}
    assert choose_by_labels(labels, {SMALL: BAD, HALF: GOOD}).chosen == HALF
    near = Function(Estimate(0.01, 0.01), 4.0, Estimate(0.4, 0.05))
    assert choose_by_labels(labels, {SMALL: near, HALF: GOOD}).chosen == SMALL


def test_rule_2_at_equal_evidence_the_functional_figures_must_speak_for_it() -> None:
    labels = {SMALL: _d(0.01, -0.05, 0.07), LINE: _d(0.02, -0.05, 0.09)}
    found = choose_by_labels(labels, {SMALL: GOOD, LINE: BAD})
    assert found.chosen == SMALL
    assert "the functional figures support it: backtest skill +0.40" in found.reasons[0]
    assert choose_by_labels(labels, {SMALL: BAD, LINE: BAD}).chosen is None
    assert choose_by_labels(labels, {}).chosen is None
    worse = {SMALL: _d(-0.01, -0.05, 0.03)}
    assert choose_by_labels(worse, {SMALL: GOOD}).chosen is None


def test_without_labels_the_own_target_or_the_furthest_inside_the_trust_region() -> None:
    near = Function(Estimate(0.05, 0.01), 4.0, Estimate(0.4, 0.05))
    assert choose_by_function(LINE, {LINE: near, HALF: GOOD}).chosen == LINE
    found = choose_by_function(LINE, {LINE: BAD, SMALL: near, HALF: GOOD})
    assert found.chosen == HALF
    assert (
        "do not support step 200 (backtest skill -0.40, KL 1.2 nats a token (outside"
        in (found.reasons[0])
    )
    none = choose_by_function(LINE, {LINE: BAD, SMALL: BAD})
    assert none.chosen is None
    assert none.reasons[0].startswith("The functional figures support none of 2 candidates")
