"""The demo keeps its promises: an honest RLVR run in small, deterministic, and resumable."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from relex_merge.api import extrapolate
from relex_merge.demo import run_demo
from relex_merge.demo.evaluate import evaluate, right_answers
from relex_merge.demo.model import (
    build_tokenizer,
    load_model,
    one_thread,
)
from relex_merge.demo.session import Session, open_session
from relex_merge.demo.settings import BAD, GOOD, WARM_UP, make_settings
from relex_merge.demo.tasks import load_task, task_names
from relex_merge.errors import RelexError
from relex_merge.evaluation.split import reported_part
from tests.support.demo_runs import (
    RLVR,
    SHORT,
    STEPS,
    TOTAL,
    Finished,
    assert_same_bits,
    begin,
    run_small,
    small_settings,
    small_split,
    train_small,
    weights,
)
from tests.support.first_digit import TASK, FirstDigit
from tests.support.models import Series

# ---- Ctrl-C


@dataclass(frozen=True)
class Interrupting(FirstDigit):
    """Somebody presses Ctrl-C while the answers to the n-th question are checked."""

    left: list[int] = field(default_factory=list)

    def verify(self, prompt: str, answer: str) -> int:
        self.left[0] -= 1
        if self.left[0] == 0:
            raise KeyboardInterrupt
        return super().verify(prompt, answer)


def test_an_interrupted_demo_goes_on_and_ends_in_the_same_bits(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    begin(out, small_settings(), finished.out / "base")
    in_sixth_step = Interrupting(left=[5 * RLVR.rollouts + 7])
    monkeypatch.setattr("relex_merge.demo.story.load_task", lambda _: in_sixth_step)
    with pytest.raises(RelexError, match=r"base model and 5 steps of RLVR.*same command again"):
        run_small(out)
    assert sorted(p.name for p in (out / "series").iterdir()) == [f"step_{i}" for i in range(1, 6)]
    monkeypatch.undo()
    result = run_small(out)
    for step in range(1, STEPS + 1):
        name = f"series/step_{step}"
        assert_same_bits(out / name, finished.out / name)
    assert_same_bits(out / f"relex/step-{TOTAL}", finished.out / f"relex/step-{TOTAL}")
    assert result.row("RELEX") == finished.result.row("RELEX")


@pytest.mark.parametrize("written", ["before the weights", "between weights and state"])
def test_whatever_moment_is_interrupted_nothing_is_lost(
    real_series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    out, settings = tmp_path / "out", small_settings()
    begin(out, settings, real_series.base)
    train_small(out, settings, last=3)
    with monkeypatch.context() as patch:
        if written == "before the weights":
            patch.setattr("relex_merge.demo.training.save_model", cut_off)
        else:
            patch.setattr(Session, "save_state", cut_off)
        with pytest.raises(KeyboardInterrupt):
            train_small(out, settings, last=5)
    session = train_small(out, settings, last=5)
    for step in range(1, 6):
        assert_same_bits(session.checkpoint(step), real_series.checkpoints[step - 1])


def test_an_interruption_of_the_base_training_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    out, settings = tmp_path / "out", small_settings(pretraining=SHORT)
    monkeypatch.setattr("relex_merge.demo.run.make_settings", lambda **_: settings)
    with monkeypatch.context() as patch:
        patch.setattr("relex_merge.demo.training.train_base", cut_off)
        with pytest.raises(RelexError, match=r"before the base model was finished.*starts again"):
            run_small(out)
    session = train_small(out, settings, last=1)
    uninterrupted = train_small(tmp_path / "other", settings, last=1)
    assert_same_bits(session.base, uninterrupted.base)
    assert_same_bits(session.checkpoint(1), uninterrupted.checkpoint(1))


def test_an_unfinished_demo_of_other_settings_is_not_continued(
    real_series: Series, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    begin(out, small_settings(), real_series.base)
    train_small(out, small_settings(), last=1)
    with pytest.raises(RelexError, match=r"unfinished demo with other settings.*--force"):
        run_small(out, seed=5)
    assert (out / "series/step_1").is_dir()


# ---- the whole story


def test_the_table_has_a_row_for_each_model(finished: Finished) -> None:
    rollouts = RLVR.rollouts
    found = [(r.name, r.step, r.rollouts, r.ratio) for r in finished.result.rows]
    chosen = STEPS if choice(finished)["stops"] else TOTAL
    best = STEPS if finished.result.measured.candidate is None else TOTAL
    assert found == [
        ("base", 0, 0, None),
        ("last observed", STEPS, STEPS * rollouts, 1.0),
        ("RELEX", TOTAL, STEPS * rollouts, TOTAL / STEPS),
        ("RELEX beyond", 2 * TOTAL, STEPS * rollouts, 2 * TOTAL / STEPS),
        ("two-point line", TOTAL, STEPS * rollouts, TOTAL / STEPS),
        ("auto", chosen, STEPS * rollouts, chosen / STEPS),
        ("measured choice", best, STEPS * rollouts, best / STEPS),
        ("real RLVR", TOTAL, TOTAL * rollouts, 1.0),
    ]
    for row in finished.result.rows:
        assert row.accuracy.problems >= (1500 if row.name == "measured choice" else 2000)
        assert f"{row.accuracy.greedy:.3f} ± {row.accuracy.greedy_error:.3f}" in finished.text
        assert f"{row.accuracy.sampled:.3f} ± {row.accuracy.sampled_error:.3f}" in finished.text


def test_accuracies_are_those_of_the_folders_in_out(finished: Finished) -> None:
    settings = small_settings()
    tokenizer, held_out = build_tokenizer(TASK), small_split(settings).held_out
    folders = {
        "base": "base",
        "last observed": f"series/step_{STEPS}",
        "RELEX": f"relex/step-{TOTAL}",
        "two-point line": "two-point",
        "auto": "auto",
        "real RLVR": f"series/step_{TOTAL}",
    }
    for name, folder in folders.items():
        model = load_model(finished.out / folder)
        with one_thread():
            again = evaluate(model, tokenizer, TASK, held_out, settings.stream("evaluation"))
        assert again == finished.result.row(name).accuracy, name


def test_the_recipe_gives_the_same_model_to_any_user(finished: Finished, tmp_path: Path) -> None:
    result = extrapolate(finished.out / "recipe.yml", tmp_path / "mine", quiet=True)
    assert_same_bits(result.out, finished.out / f"relex/step-{TOTAL}")
    assert {w.dtype for w in weights(result.out).values()} == {torch.float32}


def choice(finished: Finished) -> dict[str, Any]:
    """What ``predictor: auto`` chose, as its report has it."""
    report = json.loads((finished.out / "auto" / "relex_report.json").read_text())
    found: dict[str, Any] = report["choice"]
    return found


def test_auto_writes_what_it_chose_and_says_so(finished: Finished, tmp_path: Path) -> None:
    found = choice(finished)
    if found["stops"]:
        wanted = finished.out / f"series/step_{STEPS}"
        assert "auto says: stop at the last observed checkpoint" in finished.text
    else:
        recipe = yaml.safe_load((finished.out / "recipe.yml").read_text())
        recipe["parameters"]["predictor"] = found["predictor"]
        wanted = extrapolate(recipe, tmp_path / "named", quiet=True).out
        assert f"auto says: {found['predictor']}" in finished.text
    for name, weight in weights(wanted).items():
        torch.testing.assert_close(weights(finished.out / "auto")[name], weight)
    assert found["reasons"][0] in finished.text


def test_the_two_point_line_goes_through_base_and_last_observed(finished: Finished) -> None:
    base, last = weights(finished.out / "base"), weights(finished.out / f"series/step_{STEPS}")
    for name, line in weights(finished.out / "two-point").items():
        start = base[name].double()
        expected = start + TOTAL / STEPS * (last[name].double() - start)
        torch.testing.assert_close(line.double(), expected, rtol=1e-5, atol=1e-7)


def test_the_trust_report_comes_before_the_table(finished: Finished) -> None:
    verdict = finished.result.report["verdict"]["verdict"]
    said = finished.text.index(f"before extrapolating to step {TOTAL}: {verdict}")
    assert said < finished.text.index("last observed")
    folder = finished.out / "trust-report"
    report = json.loads((folder / "report.json").read_text())
    assert report["verdict"] == finished.result.report["verdict"]
    assert len(report["checkpoints"]) == STEPS
    assert (folder / "report.html").is_file()


def test_the_results_hold_table_and_curves(finished: Finished) -> None:
    results = json.loads((finished.out / "results.json").read_text())
    assert [row["name"] for row in results["rows"]] == [r.name for r in finished.result.rows]
    steps = {name: [p["step"] for p in curve] for name, curve in results["curves"].items()}
    assert steps["observed"][0] == 0
    assert steps["observed"][-1] == steps["real"][0] == STEPS
    assert steps["real"][-1] == TOTAL
    assert {TOTAL, 2 * TOTAL} <= set(steps["extrapolated"])
    assert (finished.out / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_the_held_out_problems_are_a_task_that_lm_eval_scores_alike(finished: Finished) -> None:
    lm_eval = pytest.importorskip("lm_eval", reason="needs the extra eval")
    from lm_eval.tasks import TaskManager

    folder, limit = finished.out / "task", 200
    problems = [json.loads(x) for x in (folder / "problems.jsonl").read_text().splitlines()]
    held_out = small_split(small_settings()).held_out
    assert [p["prompt"] for p in problems] == held_out
    reported = [p["prompt"] for p in problems if p["part"] == "reported"]
    assert sorted(reported) == sorted(reported_part("first_digit", held_out))
    last = finished.out / f"series/step_{STEPS}"
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(last), "dtype": "float32", "device": "cpu"},
        tasks=["relex_demo_first_digit"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        limit=limit,
        batch_size=limit,
        bootstrap_iters=0,
    )
    own = right_answers(load_model(last), build_tokenizer(TASK), TASK, held_out[:limit])
    score = found["results"]["relex_demo_first_digit"]["exact_match,none"]
    assert score == pytest.approx(sum(own) / limit)
    assert 0 < score < 1


# ---- what text and labels say


def test_the_evaluation_is_of_prompts_that_were_trained_on_and_lies_where_run_looks(
    finished: Finished,
) -> None:
    split = small_split(small_settings())
    lines = (finished.out / "prompts.jsonl").read_text().splitlines()
    asked = {json.loads(line)["prompt"] for line in lines}
    assert asked <= set(split.train)
    assert not asked & set(split.held_out)
    kept = json.loads((finished.out / "recipe.evaluation.json").read_text())
    results = json.loads((finished.out / "results.json").read_text())
    assert results["evaluation"]["verdict"] == kept["verdict"]
    said = next(s for s in kept["verdict"]["statements"] if s["evidence"] == "function")
    assert f"answers to {len(asked)} prompts: {said['verdict']}" in finished.text
    assert all(reason in finished.text for reason in said["says"])
    assert finished.text.index("answers to") < finished.text.index("rollouts   fewer")


def test_the_table_ends_with_what_was_said_and_what_came_out(finished: Finished) -> None:
    last, line = (finished.result.row(name).accuracy.greedy for name in ("last observed", "RELEX"))
    came = f"a {'gain' if line >= last else 'loss'}, {last:.3f} → {line:.3f}"
    assert f"  weights   {finished.result.report['verdict']['verdict']}\n" in finished.text
    assert f"  RELEX     {came}" in finished.text


def test_the_choice_is_measured_on_problems_that_had_no_part_in_it(finished: Finished) -> None:
    settings, chosen = small_settings(), finished.result.measured.candidate
    held_out = small_split(settings).held_out
    reported = reported_part("first_digit", held_out)
    row = finished.result.row("measured choice")
    assert row.accuracy.problems == len(reported) < len(held_out)
    assert finished.result.measured.choosing + len(reported) == len(held_out)
    if chosen is None:
        folder, scale = finished.out / f"series/step_{STEPS}", 0.0
    elif chosen.anchor == "line":
        folder, scale = finished.out / f"relex/step-{TOTAL}", 1.0
    else:
        folder, scale = finished.out / f"choice/scale-{chosen.scale:g}", chosen.scale
    model = load_model(folder)
    with one_thread():
        again = evaluate(
            model, build_tokenizer(TASK), TASK, reported, settings.stream("evaluation")
        )
    assert again == row.accuracy
    results = json.loads((finished.out / "results.json").read_text())
    assert results["measured_choice"]["scale"] == scale
    assert f"λ = {scale:g}" in finished.text


def test_bfloat16_copies_are_observed_and_training_does_not_see_them(
    finished: Finished, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    session = begin(out, small_settings(), finished.out / "base")
    shutil.copytree(finished.out / "series", session.series)
    session.save_state(STEPS)  # as an interrupted demo that had trained all that is observed
    said: list[str] = []
    result = run_small(out, bf16=True, echo=said.append)
    assert_same_bits(session.checkpoint(STEPS), finished.out / f"series/step_{STEPS}")
    stored = weights(out / f"bf16/step_{STEPS}")
    for name, weight in weights(session.checkpoint(STEPS)).items():
        assert torch.equal(stored[name], weight.bfloat16()), name
    assert result.report["dtype"] == "bfloat16"
    assert result.report["base"]["reference"] == str(out / "bf16/base")
    first = result.report["verdict"]["reasons"][0]
    assert result.report["verdict"]["verdict"] != "do not extrapolate" or "bfloat16" not in first
    assert "stored in bfloat16" in said[0]
    tokenizer, held_out = build_tokenizer(TASK), small_split(small_settings()).held_out
    with one_thread():
        model = load_model(out / f"bf16/step_{STEPS}")
        again = evaluate(model, tokenizer, TASK, held_out, small_settings().stream("evaluation"))
    assert again == result.row("last observed").accuracy


# ---- bad input


def test_a_finished_demo_is_not_overwritten_without_force(finished: Finished) -> None:
    with pytest.raises(RelexError, match=r"is not empty.*--force"):
        run_small(finished.out)


def test_force_replaces_a_demo_and_leaves_other_files_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    train_small(out, small_settings(seed=3, pretraining=SHORT), last=2)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(RelexError, match="--force"):
        run_small(out)
    session = open_session(out, small_settings(), force=True)
    assert session.trained() is None
    assert sorted(p.name for p in out.iterdir()) == [".demo-state.pt", "notes.txt"]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"observe": 5}, "--observe 5 is too few"),
        ({"observe": TOTAL}, f"--observe {TOTAL} leaves nothing to extrapolate"),
        ({"observe": 30}, "--observe 30 leaves nothing to extrapolate"),
        ({"lr": 0.0}, "--lr 0"),
        ({"lr": float("nan")}, "--lr nan"),
        ({"trainer": "verl"}, "unknown trainer 'verl': choose builtin or trl"),
    ],
)
def test_impossible_choices_are_refused(
    tmp_path: Path, choices: dict[str, Any], message: str
) -> None:
    with pytest.raises(RelexError, match=message):
        run_small(tmp_path / "out", **choices)
    assert not (tmp_path / "out").exists()


def test_an_unknown_task_lists_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(RelexError, match=r"'chess': choose one of addition, .*sorting"):
        run_demo(tmp_path / "out", task="chess")
    assert not (tmp_path / "out").exists()


def test_an_out_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RelexError, match=r"cannot write .*file/out"):
        run_small(tmp_path / "file" / "out")


def test_an_out_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RelexError, match=r"cannot write .*file"):
        run_small(tmp_path / "file", force=True)
    assert (tmp_path / "file").read_text() == "mine"


# ---- choices


def test_a_third_task_is_one_file() -> None:
    assert task_names() == ["addition", "first_digit", "sorting"]
    assert load_task("first_digit").summary == FirstDigit().summary


def test_choices_change_the_settings() -> None:
    common = {"task": "addition", "seed": 1, "steps": 200, "observe": 30, "trainer": "builtin"}
    assert make_settings(lr=None, bad=False, **common).rlvr == GOOD  # type: ignore[arg-type]
    assert make_settings(lr=None, bad=True, **common).rlvr == BAD  # type: ignore[arg-type]
    assert make_settings(lr=1e-5, bad=False, **common).rlvr.lr == 1e-5  # type: ignore[arg-type]
    warmed = make_settings(lr=None, bad=False, warm_up=True, **common)  # type: ignore[arg-type]
    assert warmed.rlvr == WARM_UP
    with pytest.raises(RelexError, match="choose one of them"):
        make_settings(lr=None, bad=True, warm_up=True, **common)  # type: ignore[arg-type]


# ---- TRL


def test_trl_goes_on_from_its_own_checkpoints_and_what_it_writes_is_what_we_read(
    real_series: Series, tmp_path: Path
) -> None:
    pytest.importorskip("trl")
    out, settings = tmp_path / "out", small_settings(trainer="trl")
    state = torch.random.get_rng_state()
    begin(out, settings, real_series.base)
    session = train_small(out, settings, last=2)
    kept = weights(session.checkpoint(2))
    result = run_small(out, trainer="trl", observe=6, steps=9)
    names = {folder.name for folder in session.series.glob("checkpoint-*")}
    assert names == {f"checkpoint-{step}" for step in range(1, 7)}
    assert all(torch.equal(w, kept[n]) for n, w in weights(session.checkpoint(2)).items())
    assert torch.equal(state, torch.random.get_rng_state())
    assert [c["step"] for c in result.report["checkpoints"]] == list(range(1, 7))
    assert (result.report["summary"]["explained_variance"]["model"] or 0) > 0.5
    assert {w.dtype for w in weights(out / "relex/step-9").values()} == {torch.float32}
    assert result.row("last observed").rollouts == 6 * RLVR.rollouts


def test_a_missing_trl_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(RelexError, match=r"needs trl, .*pip install 'datasets>=3' 'trl>=1.0'"):
        run_small(tmp_path / "out", trainer="trl")
    assert not (tmp_path / "out").exists()
