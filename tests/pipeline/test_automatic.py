"""``predictor:``, ``scope:`` and ``target_step: auto``, from the recipe to the output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import relex_merge
from relex_merge.errors import RelexError
from relex_merge.trajectory.predictors import PREDICTORS
from tests.support.models import (
    Series,
    State,
    expected,
    float64,
    make_config,
    make_series,
    make_state,
    read_weights,
    worst_error,
    write_model,
    write_recipe,
    write_tokenizer,
)
from tests.support.refusals import Refuse, sliced
from tests.support.terminal import Command

pytestmark = pytest.mark.usefixtures("no_figure")
STEPS = tuple(range(1, 25))
FLOAT32 = 1e-6


def written(root: Path, base: State, states: list[State]) -> Series:
    config = make_config()
    make_state(config)  # names the architecture
    folder = write_model(root / "base", config, base)
    write_tokenizer(folder)
    folders = tuple(
        write_model(root / f"step_{s}", config, state)
        for s, state in zip(STEPS, states, strict=True)
    )
    return Series(folder, folders, STEPS, base, tuple(states))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """Nearly a line. Not to be changed."""
    return make_series(tmp_path_factory.mktemp("line"), steps=STEPS)


@pytest.fixture(scope="module")
def slowing(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """Weights that move as √s. Not to be changed."""
    base = make_state(make_config())
    noise = torch.Generator().manual_seed(3)
    to = {n: 5e-3 * torch.randn(w.shape, generator=noise) for n, w in base.items()}
    wobble = 1e-4
    states = [
        {
            n: w + s**0.5 * to[n] + wobble * torch.randn(w.shape, generator=noise)
            for n, w in base.items()
        }
        for s in STEPS
    ]
    return written(tmp_path_factory.mktemp("sqrt"), base, states)


@pytest.fixture(scope="module")
def wandering(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """A random walk. Not to be changed."""
    base = make_state(make_config())
    noise = torch.Generator().manual_seed(1)
    states, now = [], base
    for _ in STEPS:
        now = {n: w + 1e-3 * torch.randn(w.shape, generator=noise) for n, w in now.items()}
        states.append(now)
    return written(tmp_path_factory.mktemp("walk"), base, states)


def explicit(series: Series, name: str, target: float) -> dict[str, Any]:
    """θ₀ + Mᵀw of every tensor in float64."""
    steps, result = np.asarray(series.steps, dtype=np.float64), {}
    for tensor, weight in series.base_state.items():
        base = float64(weight)
        M = np.stack([float64(state[tensor]) - base for state in series.states])
        result[tensor] = base + M.T @ PREDICTORS[name].weights(M @ M.T, steps, target)
    return result


def report_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "relex_report.json").read_text())
    return found


def last(series: Series) -> dict[str, Any]:
    return {name: float64(weight) for name, weight in series.states[-1].items()}


@pytest.mark.parametrize("name", sorted(PREDICTORS))
def test_a_named_predictor_writes_its_model(name: str, slowing: Series, tmp_path: Path) -> None:
    recipe = slowing.recipe(60, predictor=name)
    done = relex_merge.extrapolate(recipe, tmp_path / "out", quiet=True)
    reference = explicit(slowing, name, 60.0)
    assert worst_error(read_weights(tmp_path / "out"), reference) < 5 * FLOAT32
    assert done.report["method"].get("predictor", "linear") == name
    assert "choice" not in done.report


def test_the_default_is_the_papers_line(straight: Series, tmp_path: Path) -> None:
    done = relex_merge.extrapolate(straight.recipe(60), tmp_path / "out", quiet=True)
    assert worst_error(read_weights(tmp_path / "out"), expected(straight, 60)) < 5 * FLOAT32
    assert "predictor" not in done.report["method"]


def test_predictors_may_be_filtered_per_tensor(slowing: Series, tmp_path: Path) -> None:
    setting = [{"filter": "mlp", "value": "sqrt"}, {"value": "stay"}]
    relex_merge.extrapolate(slowing.recipe(60, predictor=setting), tmp_path / "out", quiet=True)
    curve, still = explicit(slowing, "sqrt", 60.0), last(slowing)
    reference = {n: curve[n] if "mlp" in n else still[n] for n in curve}
    assert worst_error(read_weights(tmp_path / "out"), reference) < 5 * FLOAT32


def test_auto_writes_what_it_chose_and_says_why(
    relex: Command, slowing: Series, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "r.yml", slowing.recipe(72, predictor="auto"))
    done = relex("run", path, tmp_path / "out", "--quiet")
    assert done.code == 0, done.err
    report = report_in(tmp_path / "out")
    chosen = report["choice"]["predictor"]
    assert chosen in ("sqrt", "power")
    assert report["method"]["predictor"] == chosen
    reference = explicit(slowing, chosen, 72.0)
    assert worst_error(read_weights(tmp_path / "out"), reference) < 5 * FLOAT32
    evidence = report["choice"]["groups"]["model"]["candidates"]
    assert evidence[chosen]["expected"] > evidence["linear"]["expected"]
    assert evidence[chosen]["trials"]
    reason = report["choice"]["reasons"][0]
    card = (tmp_path / "out/README.md").read_text()
    assert "chosen by backtests" in card
    assert f"| {chosen} |" in card
    shown = relex("inspect", path, "--quiet", "--html", tmp_path / "r.html")
    assert f"chosen predictor: {chosen}" in shown.out
    assert reason.split(" (")[0] in " ".join(shown.out.split())
    assert f"chosen predictor: {chosen}" in (tmp_path / "r.html").read_text()


def test_auto_reads_reused_matrices_and_nothing_else_twice(slowing: Series, tmp_path: Path) -> None:
    recipe = slowing.recipe(72, predictor="auto")
    first = relex_merge.extrapolate(recipe, tmp_path / "a", quiet=True)
    again = relex_merge.extrapolate(recipe, tmp_path / "b", reuse=tmp_path / "a", quiet=True)
    assert again.report["choice"] == first.report["choice"]
    one, other = read_weights(tmp_path / "a"), read_weights(tmp_path / "b")
    assert all(torch.equal(one[n], other[n]) for n in one)
    assert relex_merge.inspect(tmp_path / "a")["choice"] == first.report["choice"]


def test_reused_matrices_of_another_series_are_refused_before_the_choice(
    slowing: Series, straight: Series, tmp_path: Path
) -> None:
    relex_merge.extrapolate(straight.recipe(60), tmp_path / "a", quiet=True)
    with pytest.raises(RelexError, match="formed from other checkpoints"):
        relex_merge.extrapolate(
            slowing.recipe(72, predictor="auto"), tmp_path / "b", reuse=tmp_path / "a", quiet=True
        )


@pytest.mark.parametrize(
    "parameters",
    [
        {"target_step": 96, "predictor": "auto"},
        {"target_step": "auto", "predictor": "auto"},
        {"target_step": "auto"},
    ],
    ids=["predictor", "both", "target"],
)
def test_auto_stops_at_the_last_checkpoint_unless_told_otherwise(
    relex: Command, wandering: Series, tmp_path: Path, parameters: dict[str, Any]
) -> None:
    recipe = {**wandering.recipe(1), "parameters": parameters}
    path = write_recipe(tmp_path / "r.yml", recipe)
    done = relex("run", path, tmp_path / "out", "--quiet")
    assert done.code == 1
    assert "--yes writes the last observed checkpoint" in done.err
    assert not (tmp_path / "out").exists()
    assert relex("run", path, tmp_path / "out", "--quiet", "--yes").code == 0
    assert worst_error(read_weights(tmp_path / "out"), last(wandering)) < FLOAT32
    report = report_in(tmp_path / "out")
    assert report["choice"]["stops"]
    assert report["verdict"]["verdict"] == "do not extrapolate"


def test_an_automatic_target_is_the_furthest_supported_step(
    relex: Command, straight: Series, tmp_path: Path
) -> None:
    recipe = {**straight.recipe(1), "parameters": {"target_step": "auto"}}
    path = write_recipe(tmp_path / "r.yml", recipe)
    done = relex("run", path, tmp_path / "out", "--quiet")
    assert done.code == 0, done.err
    report = report_in(tmp_path / "out")
    target = report["target_step"]
    assert target > STEPS[-1]
    assert report["choice"]["target_step"] == target
    assert [step for step, *_ in report["choice"]["curve"]][-1] >= target
    assert worst_error(read_weights(tmp_path / "out"), expected(straight, target)) < 5 * FLOAT32


def test_held_out_checkpoints_do_not_enter_the_choice(
    slowing: Series, wandering: Series, tmp_path: Path
) -> None:
    """The same observed checkpoints, with true and with corrupted later ones held out."""
    recipe = slowing.recipe(48, predictor="auto")
    recipe["models"] = recipe["models"][:16]
    corrupted = []
    for folder, state in zip(wandering.checkpoints[16:], wandering.states[16:], strict=True):
        spoilt = {n: 100 * w for n, w in state.items()}
        corrupted.append(write_model(tmp_path / folder.name, make_config(), spoilt))
    reports = [
        relex_merge.inspect(recipe, holdout=[str(folder) for folder in later], quiet=True)
        for later in (slowing.checkpoints[16:], corrupted)
    ]
    assert len(reports[0]["holdout"] or ()) == 8
    assert reports[0]["holdout"] != reports[1]["holdout"]
    alone = relex_merge.inspect(recipe, quiet=True)
    assert reports[0]["choice"] == reports[1]["choice"]
    # Sums over other numbers of rows are rounded differently.
    one, other = (r["choice"]["groups"]["model"]["candidates"] for r in (reports[0], alone))
    for name, candidate in one.items():
        assert candidate["expected"] == pytest.approx(other[name]["expected"], rel=1e-5)
    assert reports[0]["method"] == reports[1]["method"]


def test_a_forecast_says_that_a_choice_reads_twice(
    relex: Command, slowing: Series, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "r.yml", slowing.recipe(72, predictor="auto"))
    assert "read once more" in relex("run", path, tmp_path / "out", "--dry-run").out
    named = write_recipe(tmp_path / "n.yml", slowing.recipe(72, predictor="sqrt"))
    assert "read once more" not in relex("run", named, tmp_path / "out", "--dry-run").out


def test_on_mergekits_own_path_a_choice_is_made_for_each_tensor(
    relex: Command, slowing: Series, tmp_path: Path
) -> None:
    recipe = sliced(slowing.recipe(72, predictor="auto", scope="tensor"))
    path = write_recipe(tmp_path / "r.yml", recipe)
    done = relex("run", path, tmp_path / "out", "--quiet")
    assert done.code == 0, done.err
    engine = slowing.recipe(72, predictor="auto", scope="tensor")
    relex_merge.extrapolate(engine, tmp_path / "engine", quiet=True)
    one, other = read_weights(tmp_path / "out"), read_weights(tmp_path / "engine")
    assert all(torch.allclose(one[n], other[n], atol=1e-6) for n in one)


# bad input


def test_an_unknown_predictor_is_refused_with_the_known_ones(
    refuse: Refuse, straight: Series
) -> None:
    message = refuse(straight.recipe(60, predictor="sine"))
    assert "predictor is 'sine'" in message
    assert all(name in message for name in (*PREDICTORS, "auto"))
    assert "scope is 'layer'" in refuse(straight.recipe(60, scope="layer"))


def test_a_recipe_that_names_blend_is_told_what_to_use_instead(
    refuse: Refuse, straight: Series
) -> None:
    message = refuse(straight.recipe(60, predictor="blend"))
    assert "blend was removed; use auto" in message
    assert "or name one of linear, sqrt" in message


def test_a_predictor_that_needs_more_checkpoints_is_refused(
    refuse: Refuse, straight: Series
) -> None:
    recipe = straight.recipe(60, predictor="damped")
    recipe["models"] = recipe["models"][:3]
    assert "damped needs at least 4 checkpoints, there are 3" in refuse(recipe)


@pytest.mark.parametrize("name", ["sqrt", "power"])
def test_steps_that_are_not_above_zero_are_refused(
    name: str, refuse: Refuse, straight: Series
) -> None:
    recipe = straight.recipe(60, predictor=name)
    recipe["models"][0]["parameters"] = {"step": 0}
    assert f"{name} needs steps above 0" in refuse(recipe)


def test_auto_with_too_few_checkpoints_says_why(refuse: Refuse, straight: Series) -> None:
    recipe = straight.recipe(60, predictor="auto")
    recipe["models"] = recipe["models"][:5]
    message = refuse(recipe)
    assert "5 checkpoints are too few" in message
    assert "name a predictor" in message


def test_the_whole_model_cannot_be_seen_on_mergekits_own_path(
    refuse: Refuse, straight: Series
) -> None:
    assert "scope: tensor" in refuse(sliced(straight.recipe(60, predictor="auto")))
    recipe = {**straight.recipe(1), "parameters": {"target_step": "auto"}}
    assert "give a target_step" in refuse(sliced(recipe))


def test_a_degree_is_for_the_line(refuse: Refuse, straight: Series) -> None:
    assert "degree is for predictor: linear" in refuse(
        straight.recipe(60, predictor="sqrt", degree=2)
    )


def test_a_target_that_is_neither_number_nor_auto_is_refused(
    refuse: Refuse, straight: Series
) -> None:
    recipe = {**straight.recipe(1), "parameters": {"target_step": "later"}}
    assert "must be a number from 0 to 2^53, or auto" in refuse(recipe)


def test_options_of_relex_are_refused_for_other_methods(series: Series, refuse: Refuse) -> None:
    recipe = {
        "merge_method": "linear",
        "models": [{"model": str(c), "parameters": {"weight": 1}} for c in series.checkpoints[:2]],
        "dtype": "float32",
    }
    named = ("--revision", "mine")  # other methods have no target step to name it by
    assert "--lora-rank" in refuse(recipe, "--as", "adapter", "--lora-rank", "3", *named)
    assert "--reuse" in refuse(recipe, "--reuse", Path("nowhere"), *named)
