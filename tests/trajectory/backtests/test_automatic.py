"""The choice of predictor and target: by what was observed alone, and never without saying why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relex_merge.errors import RelexError
from relex_merge.trajectory.backtests.automatic import FEWEST, Resolved, choose, resolve
from relex_merge.trajectory.backtests.results import Choice
from relex_merge.trajectory.gram import Array
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics
from tests.support.report_cases import Trajectory, make, report_of

EVEN = np.arange(1.0, 41)
TWO = ("model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight")


def wander(seed: int = 0) -> Trajectory:
    return make(EVEN, walk=50.0, seed=seed, names=TWO)


@pytest.mark.parametrize("seed", range(2))
def test_a_line_is_continued_as_a_line(seed: int) -> None:
    assert choose(make(EVEN, seed=seed).statistics(), 160.0).name == "linear"


@pytest.mark.parametrize("seed", range(2))
def test_a_path_that_slows_down_is_not_continued_as_a_line(seed: int) -> None:
    run = make(np.append(EVEN, 160.0), law=0.5, walk=0.0, seed=seed, names=TWO)
    found = choose(run.statistics(40), 160.0)
    assert found.name in ("sqrt", "power")
    truth, last = run.whole()[-1], run.whole()[39]
    predicted = np.concatenate(
        [
            M[:40].T @ Parameters(160.0, predictor=found.name).weights(M[:40] @ M[:40].T, EVEN)
            for M in run.deltas.values()
        ]
    )
    assert np.sum((predicted - truth) ** 2) < 0.2 * np.sum((last - truth) ** 2)


@pytest.mark.parametrize("seed", range(3))
def test_a_random_walk_is_left_where_it_is(seed: int) -> None:
    found = choose(wander(seed).statistics(), 160.0)
    assert (found.name, found.stops) == ("stay", True)
    assert "No predictor is clearly expected to come closer" in found.reasons[0]


def later_corrupted(run: Trajectory, T: int) -> Trajectory:
    """The run with everything after the first T checkpoints replaced by noise."""
    rng = np.random.default_rng(9)
    deltas = {}
    for name, M in run.deltas.items():
        deltas[name] = np.concatenate([M[:T], rng.standard_normal(M[T:].shape)])
    return Trajectory(run.steps, run.base, deltas)


def resolved_from_25(
    run: Trajectory, scope: str, target: float | None
) -> tuple[SeriesStatistics, Resolved]:
    """The first 25 checkpoints of all, and what follows from them."""
    asked = {
        n: Parameters(target or 25.0, predictor="auto", scope=scope, auto_target=target is None)
        for n in TWO
    }
    observed = run.statistics().select(np.arange(len(EVEN)) < 25)
    return observed, resolve(asked, observed)


@pytest.mark.parametrize(
    ("law", "scope", "target"),
    [(1.0, "model", None), (0.5, "module", 80.0), (0.5, "tensor", None), (1.0, "tensor", 80.0)],
)
def test_nothing_after_the_last_observed_checkpoint_enters_the_choice(
    law: float, scope: str, target: float | None
) -> None:
    run = make(EVEN, law=law, names=TWO)
    results = []
    for each in (run, later_corrupted(run, 25)):
        observed, found = resolved_from_25(each, scope, target)
        w = {
            n: p.weights(observed.tensors[n].gram, observed.steps)
            for n, p in found.parameters.items()
        }
        results.append((found.choice, w))
    (choice, w), (again, w_again) = results
    assert choice == again
    for name in TWO:
        np.testing.assert_array_equal(w[name], w_again[name])


@pytest.mark.parametrize("law", [1.0, 0.5])
def test_nothing_after_the_last_observed_checkpoint_enters_the_verdict(law: float) -> None:
    run = make(EVEN, law=law, names=TWO)
    verdicts = []
    for each in (run, later_corrupted(run, 25)):
        observed, found = resolved_from_25(each, "model", 80.0)
        verdicts.append(report_of(observed, 80.0, found.parameters)["verdict"])
    assert verdicts[0] == verdicts[1]


def test_the_choice_is_the_same_every_time_and_in_every_unit() -> None:
    statistics = make(EVEN, law=0.6).statistics()
    found = choose(statistics, 200.0)
    assert choose(statistics, 200.0) == found
    scaled = replace(
        statistics,
        tensors={n: replace(t, gram=t.gram * 1e-8) for n, t in statistics.tensors.items()},
    )
    assert choose(scaled, 200.0).name == found.name


@pytest.mark.parametrize(("scope", "groups"), [("model", 1), ("module", 2), ("tensor", 3)])
def test_scope_says_how_often_a_choice_is_made(scope: str, groups: int) -> None:
    names = (TWO[0], TWO[1], TWO[0].replace("0", "2"))
    lines, walks = make(EVEN, names=names), make(EVEN, names=names, walk=50.0)
    mixed = {**lines.deltas, TWO[1]: 1e-3 * walks.deltas[TWO[1]]}
    run = Trajectory(EVEN, lines.base, mixed)
    found = choose(run.statistics(), 160.0, scope=scope)
    assert len(found.groups) == groups
    assert found.name == "linear"
    assert found.names[TWO[1]] == ("linear" if scope == "model" else "stay")


@pytest.mark.parametrize("T", [2, 5])
def test_too_few_checkpoints_give_no_choice(T: int) -> None:
    statistics = make(np.arange(1.0, T + 1), names=TWO).statistics()
    for target in (4.0 * T, None):
        found = choose(statistics, target)
        assert found.stops
        assert f"{T} checkpoints are too few" in found.reasons[0]
        assert str(FEWEST) in found.reasons[0]


def test_a_target_beyond_every_backtest_is_not_trusted() -> None:
    found = choose(make(np.arange(10.0, 31), names=TWO).statistics(), 3000.0)
    assert found.stops
    assert "Nothing that was backtested speaks for step 3000" in found.reasons[0]


def furthest(run: Trajectory) -> Choice:
    return choose(run.statistics(), None)


def test_the_furthest_target_is_where_the_skill_stops_being_clearly_positive() -> None:
    straight = furthest(make(EVEN, names=TWO, walk=0.05))
    drifting = furthest(make(EVEN, names=TWO, walk=1.0))
    assert straight.target > drifting.target >= EVEN[-1]
    assert not straight.stops
    steps = [step for step, *_ in straight.curve]
    assert steps == sorted(steps)
    supported = [low > 0 for step, _, low, _ in straight.curve if step <= straight.target]
    assert all(supported)
    assert straight.target in steps


def test_a_random_walk_has_no_target() -> None:
    found = furthest(wander())
    assert found.stops
    assert found.target == EVEN[-1]
    assert "stop there" in found.reasons[0]


def test_a_named_predictor_has_a_furthest_target_of_its_own() -> None:
    statistics = make(EVEN, law=0.5, walk=0.0, names=TWO).statistics()
    ends = {
        name: resolve(
            dict.fromkeys(TWO, Parameters(40.0, predictor=name, auto_target=True)), statistics
        ).parameters[TWO[0]]
        for name in ("linear", "sqrt")
    }
    assert ends["sqrt"].target_step > ends["linear"].target_step
    assert ends["sqrt"].predictor == "sqrt"


def test_steps_from_zero_leave_out_what_cannot_be_fitted() -> None:
    run = make(np.arange(1.0, 41), names=TWO)
    shifted = SeriesStatistics(run.steps - 1, run.statistics().tensors)
    found = choose(shifted, 100.0)
    skills = {c.name: c.skill for c in found.groups["model"].candidates}
    assert skills["sqrt"] is None
    assert skills["power"] is None
    assert found.name == "linear"


def test_what_is_named_stays_as_it_is() -> None:
    statistics = wander().statistics()
    named = dict.fromkeys(TWO, Parameters(160.0, rank=2, predictor="sqrt"))
    assert resolve(named, statistics).parameters == named
    assert resolve(named, statistics).choice is None


def test_a_filter_may_leave_some_tensors_to_the_choice() -> None:
    statistics = wander().statistics()
    given = {TWO[0]: Parameters(160.0), TWO[1]: Parameters(160.0, predictor="auto")}
    found = resolve(given, statistics)
    assert found.parameters[TWO[0]] == given[TWO[0]]
    assert found.parameters[TWO[1]].predictor == "stay"


def test_filters_that_no_one_choice_can_meet_are_refused() -> None:
    statistics = wander().statistics()
    given = {
        TWO[0]: Parameters(160.0, predictor="auto"),
        TWO[1]: Parameters(160.0, predictor="auto", rank=2),
    }
    with pytest.raises(RelexError, match="without filters"):
        resolve(given, statistics)
    half = {TWO[0]: Parameters(160.0), TWO[1]: Parameters(40.0, auto_target=True)}
    with pytest.raises(RelexError, match="whole model"):
        resolve(half, statistics)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "layer"}, "scope is 'layer'; it can be model, module, tensor"),
        ({"candidates": ("line",)}, "predictor is 'line'; it can be linear, sqrt"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(
    options: dict[str, Array], message: str
) -> None:
    with pytest.raises(RelexError, match=message):
        choose(wander().statistics(), 160.0, **options)  # type: ignore[arg-type]


def test_the_verdict_is_about_the_chosen_predictor() -> None:
    run = make(EVEN, law=0.5, walk=0.0, names=TWO)
    line = report_of(run.statistics(), 160.0)
    found = resolve(dict.fromkeys(TWO, Parameters(160.0, predictor="auto")), run.statistics())
    chosen = report_of(run.statistics(), 160.0, found.parameters)
    assert line["verdict"]["verdict"] == "do not extrapolate"
    assert chosen["verdict"]["verdict"] == "extrapolate"
    name = found.parameters[TWO[0]].predictor
    assert chosen["model"]["backtest_skill"] == chosen["backtests"]["skill"][name]


def test_standing_still_is_never_called_an_extrapolation() -> None:
    report = report_of(wander().statistics(), 160.0, Parameters(160.0, predictor="stay"))
    assert report["verdict"]["verdict"] == "do not extrapolate"
    assert "kept as it is" in report["verdict"]["reasons"][0]


def test_every_predictor_is_shown_side_by_side() -> None:
    labels = report_of(make(EVEN, names=TWO).statistics(), 160.0)["backtests"]["labels"]
    assert {"linear", "sqrt", "power", "saturating", "local", "damped"} <= set(labels)


def test_a_candidate_whose_arithmetic_fails_is_not_chosen_and_the_reasons_say_so() -> None:
    # Twice step 2: the quadratic has no fit through the first cuts, the line has one.
    steps = np.asarray([1.0, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    statistics = make(steps, names=("a", "b")).statistics()
    found = choose(statistics, 22.0, candidates=("linear", "power", "saturating", "damped"))
    assert found.name == "linear"


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_a_broken_gram_matrix_has_no_say_in_the_choice(value: float) -> None:
    whole = make(np.arange(1.0, 25), names=("a", "b", "c")).statistics()
    gram = whole.tensors["b"].gram.copy()
    gram[3, 3] = value
    spoilt = replace(whole, tensors={**whole.tensors, "b": replace(whole.tensors["b"], gram=gram)})
    rest = {name: tensor for name, tensor in whole.tensors.items() if name != "b"}
    expected, found = (choose(s, 48.0) for s in (replace(whole, tensors=rest), spoilt))
    assert found.name == expected.name == "linear"
    assert found.reasons == expected.reasons


def test_a_failing_candidate_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from relex_merge.trajectory.predictors import PREDICTORS

    def fail(*_: object) -> Array:
        raise np.linalg.LinAlgError("no solution")

    statistics = make(np.arange(1.0, 25), names=("a", "b")).statistics()
    expected = choose(statistics, 48.0)
    broken = replace(PREDICTORS["power"], rule=fail)
    monkeypatch.setitem(PREDICTORS, "power", broken)
    found = choose(statistics, 48.0)
    assert found.name == expected.name == "linear"
    assert "power could not be judged at every cut: no solution." in found.reasons


def along_one_direction(seed: int, steps: Array) -> SeriesStatistics:
    """Two tensors: a path along one direction, at a random power of the step, with noise."""
    draw = np.random.default_rng(seed)
    found = {}
    for name in ("one", "two"):
        M = np.outer(steps ** draw.uniform(0.2, 1.2), draw.normal(size=20))
        M += draw.uniform(0, 0.5) * draw.normal(size=M.shape)
        found[name] = TensorStatistics(M @ M.T, 1.0, 20, 20)
    return SeriesStatistics(steps, found)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), unit=st.sampled_from([1.0, 0.1, 7.0]))
def test_a_found_target_is_beyond_the_last_step_or_the_answer_is_stop(
    seed: int, unit: float
) -> None:
    steps = unit * np.arange(1, 10, dtype=np.float64)
    choice = choose(along_one_direction(seed, steps), None)
    assert all(step > steps[-1] for step, *_ in choice.curve)
    if choice.stops:
        assert choice.target == steps[-1]
    else:
        assert choice.target > steps[-1]
        assert choice.target in [step for step, *_ in choice.curve]
