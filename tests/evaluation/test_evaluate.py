"""From a recipe to an evaluation: what is put into memory is what ``run`` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import relex_merge
from relex_merge.errors import RelexError
from relex_merge.evaluation.live_model import LiveModel
from relex_merge.evaluation.series_models import Cut, SeriesModels, cuts_at
from relex_merge.pipeline.prepare import prepare
from relex_merge.recipe.load import load_recipe
from relex_merge.recipe.variant import Variant
from relex_merge.report.candidates import Candidate
from tests.support.lm_eval_tasks import write_task
from tests.support.models import Series, make_series, read_weights

TEXT = [{"prompt": f"a{i}", "response": "b c d e"} for i in range(6)]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """Twelve checkpoints, so that four lie before the cut of a short backtest."""
    return make_series(tmp_path_factory.mktemp("long"), steps=tuple(range(1, 13)))


def progress(_: int) -> Any:
    return lambda count=1: None


def put(series: Series, recipe: dict[str, Any], candidates: list[Candidate], scratch: Path) -> Any:
    from mergekit.options import MergeOptions

    from relex_merge.engine.resources import available

    prepared = prepare(load_recipe(recipe), [Variant()], MergeOptions())
    live = LiveModel(series.base, "the base", torch.device("cpu"))
    cuts = cuts_at(prepared.plan.steps, 20.0)
    models = SeriesModels(prepared.plan, live, candidates, cuts, scratch)
    models.read(available(MergeOptions(), None), progress)
    return live, models, cuts


@pytest.mark.parametrize("parameters", [{}, {"rank": 2, "predictor": "sqrt"}, {"window": 4}])
def test_candidates_are_what_run_writes(
    parameters: dict[str, Any], long: Series, tmp_path: Path
) -> None:
    recipe = long.recipe(20, **parameters)
    candidates = [
        Candidate(20),
        Candidate(40),
        Candidate(20, 0.3),
        Candidate(20, 0.3, "last"),
        *([Candidate(20, 0.5, "average")] if "window" in parameters else []),
    ]
    live, models, _ = put(long, recipe, candidates, tmp_path / "scratch")
    state = live.model.state_dict()
    for number, candidate in enumerate(candidates):
        own = {**parameters, "anchor": candidate.anchor, "scale": candidate.scale}
        made = relex_merge.extrapolate(
            long.recipe(candidate.target_step, **own),
            tmp_path / f"out-{number}",
            figure=False,
            quiet=True,
        )
        models.put_candidate(candidate)
        for name, written in read_weights(made.out).items():
            torch.testing.assert_close(state[name], written.float(), rtol=1e-6, atol=1e-6)


def test_a_backtest_is_the_recipe_of_the_first_checkpoints(long: Series, tmp_path: Path) -> None:
    live, models, cuts = put(long, long.recipe(20), [Candidate(20)], tmp_path / "scratch")
    assert Cut(12 / 7, 7) in cuts
    first = {**long.recipe(12), "models": long.recipe(12)["models"][:7]}
    made = relex_merge.extrapolate(first, tmp_path / "out", figure=False, quiet=True)
    models.put_backtest(Cut(12 / 7, 7))
    state = live.model.state_dict()
    for name, written in read_weights(made.out).items():
        torch.testing.assert_close(state[name], written.float(), rtol=1e-6, atol=1e-6)


def test_the_command_writes_an_evaluation_and_the_chosen_recipe(
    long: Series, tmp_path: Path, relex: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # finished measurements are kept beside where it is called
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps(line) + "\n" for line in TEXT))
    questions = [{"q": f"a{i}", "a": "x"} for i in range(24)]
    tasks = write_task(tmp_path / "tasks", "letters", questions)
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(yaml.safe_dump(long.recipe(20)))
    file = tmp_path / "evaluation.json"
    done = relex(
        "evaluate",
        recipe,
        *("--text", text, "--tasks", "letters", "--include-path", tasks, "--json", file),
        *("--scale", 0.5, "--every", 6, "--quiet"),
    )
    assert done.code == 0, done.err
    found = json.loads(file.read_text())
    names = [entry["model"] for entry in found["function"]["candidates"]]
    assert names == ["step 20", "step 20 × 0.5 (anchor last)"]
    assert [t["ratio"] for t in found["function"]["backtests"]] == pytest.approx(
        [12 / 7, 12 / 8, 12 / 9]
    )
    others = [entry["model"] for entry in found["function"]["others"]]
    assert others == ["base", "observed step 6"]
    assert {entry["split"] for entry in found["tasks"]["letters"]} == {"choosing", "reported"}
    assert found["verdict"]["evidence"] in ("geometry", "function", "labels")
    assert "KL from last" in done.out


def test_what_cannot_be_evaluated_is_named(long: Series, tmp_path: Path) -> None:
    with pytest.raises(RelexError, match=r"cannot read .*none\.jsonl"):
        relex_merge.evaluate(long.recipe(20), text=tmp_path / "none.jsonl", quiet=True)
    with pytest.raises(RelexError, match="evaluate is for mode: extrapolate"):
        relex_merge.evaluate(long.recipe(12, mode="reconstruct"), quiet=True)
