"""``TrajectoryCallback`` in a real ``Trainer.train()``."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import relex_merge
from relex_merge import RelexError, StopWhen, TrajectoryCallback
from relex_merge.training.series_folder import SeriesFolder
from relex_merge.training.stopping import Figures
from relex_merge.trajectory.statistics import SeriesStatistics
from tests.fake_hub import Fault, Hub
from tests.fake_hub.access import Token
from tests.fake_hub.building import READ_TOKEN
from tests.support.models import Series, expected, read_weights, worst_error
from tests.support.terminal import Command, python
from tests.support.training_runs import gram_of, make_trainer, write_base

REPO = "tester/live"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "base")


def train(base: Path, output: Path, callback: TrajectoryCallback, **arguments: Any) -> Any:
    resume = arguments.pop("resume", None)
    trainer = make_trainer(base, output, **arguments)
    callback.attach(trainer)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def folders(output: Path) -> list[Path]:
    found = (output / "relex_series").glob("step_*")
    return sorted(found, key=lambda path: int(path.name[5:]))


def assert_gram(base: Path, output: Path, steps: Sequence[int]) -> None:
    """The saved G is that of an independent computation in float64."""
    saved = SeriesStatistics.load(output / "relex_series" / "relex_gram.safetensors")
    assert saved.steps.tolist() == list(steps)
    assert [path.name for path in folders(output)] == [f"step_{step}" for step in steps]
    reference = gram_of(base, folders(output))
    assert set(saved.tensors) == set(reference)
    for name, G in reference.items():
        np.testing.assert_allclose(saved.tensors[name].gram, G, rtol=1e-9, atol=1e-12 * G.max())


@pytest.mark.parametrize(
    "how",
    [{}, {"exact": True}, {"exact": True, "memory": 0}, {"exact": True, "memory": 60_000}],
    ids=["sampled", "all held", "none held", "some held"],
)
def test_the_gram_matrices_grow_with_every_save(
    base: Path, tmp_path: Path, how: dict[str, Any]
) -> None:
    train(base, tmp_path, TrajectoryCallback(60, **how))
    assert_gram(base, tmp_path, range(1, 7))


@pytest.mark.parametrize("exact", [True, False])
def test_a_save_reads_only_the_new_checkpoint_and_takes_a_sample_from_the_parameters(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    from relex_merge.weights.safetensors import SafetensorsSource

    read: dict[str, int] = {}
    original = SafetensorsSource.read

    def count(self: Any, reads: Any) -> None:
        read[self.label] = read.get(self.label, 0) + sum(len(wish.into) for wish in reads)
        original(self, reads)

    monkeypatch.setattr(SafetensorsSource, "read", count)
    train(base, tmp_path, TrajectoryCallback(60, exact=exact))
    size = sum(tensor.nbytes for tensor in read_weights(base).values())
    # There is no trajectory yet at the first save, so that it is read at the second.
    saved = folders(tmp_path) if exact else folders(tmp_path)[:1]
    assert {label: count for label, count in read.items() if count} == {
        str(path): size for path in [base, *saved]
    }


def test_what_was_measured_on_a_sample_is_not_reused(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("relex_merge.training.follow.SAMPLE", 3000)
    callback = TrajectoryCallback(60)
    train(base, tmp_path, callback)
    saved = SeriesStatistics.load(tmp_path / "relex_series" / "relex_gram.safetensors")
    assert saved.sampled
    assert callback.recipe is not None
    exact = relex_merge.inspect(callback.recipe, quiet=True)["model"]["explained_variance"]
    assert callback.history[-1].explained_variance == pytest.approx(exact, abs=0.02)
    said = capsys.readouterr()
    assert f"relex-merge run {callback.recipe} OUT\n" in said.out + said.err + "\n"


def test_the_figures_of_the_report_reach_the_trainers_own_reports(
    base: Path, tmp_path: Path
) -> None:
    from transformers import TrainerCallback

    seen: list[dict[str, float]] = []

    class Reporter(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **_: Any) -> None:
            seen.append(dict(logs))

    trainer = make_trainer(base, tmp_path, max_steps=9)
    trainer.add_callback(Reporter())
    callback = TrajectoryCallback(18).attach(trainer)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "relex/straightness" in entry]
    assert [entry["step"] for entry in logged] == list(range(2, 10))
    assert [e["relex/checkpoints"] for e in seen if "relex/r2" in e] == list(range(2, 10))
    assert callback.recipe is not None
    report = relex_merge.inspect(callback.recipe, quiet=True)
    for key in ("explained_variance", "r2", "straightness", "backtest_skill"):
        figure = report["summary"][key]["model"]
        assert logged[-1][f"relex/{key}"] == pytest.approx(figure, rel=1e-6)
    assert callback.history[-1].verdict == report["verdict"]["verdict"]
    assert "relex/backtest_skill" not in logged[0]


def test_without_attach_the_figures_are_in_the_trainers_state(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(base, tmp_path)
    trainer.add_callback(TrajectoryCallback(60))
    trainer.train()
    steps = [e["step"] for e in trainer.state.log_history if "relex/straightness" in e]
    assert steps == list(range(2, 7))
    assert "attach(trainer)" in caplog.text


def test_a_stray_file_in_the_series_folder_is_no_step(tmp_path: Path) -> None:
    folder = SeriesFolder(tmp_path)
    for name in ("step_2", "step_10", "step_x", "step_", "step_3.bak"):
        (tmp_path / name).mkdir()
    assert folder.steps() == [2, 10]


def test_links_outlive_the_checkpoints_and_hold_no_optimizer_state(
    base: Path, tmp_path: Path
) -> None:
    train(base, tmp_path, TrajectoryCallback(60), save_total_limit=1)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-6"]
    assert len(folders(tmp_path)) == 6
    newest = folders(tmp_path)[-1]
    weights = newest / "model.safetensors"
    assert weights.samefile(tmp_path / "checkpoint-6" / "model.safetensors")
    names = {path.name for path in newest.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not names & {"optimizer.pt", "training_args.bin", "scheduler.pt", "trainer_state.json"}


def test_the_recipe_finishes_the_job_and_reuses_the_gram_matrices(
    base: Path, tmp_path: Path
) -> None:
    callback = TrajectoryCallback(60)
    train(base, tmp_path / "run", callback, save_total_limit=1)
    recipe = callback.recipe
    assert recipe is not None
    out = tmp_path / "out"
    relex_merge.extrapolate(
        recipe, out, reuse=recipe.parent / "relex_gram.safetensors", quiet=True, figure=False
    )
    states = tuple(read_weights(folder) for folder in folders(tmp_path / "run"))
    steps = tuple(range(1, 7))
    series = Series(base, tuple(folders(tmp_path / "run")), steps, read_weights(base), states)
    assert worst_error(read_weights(out), expected(series, 60)) < 1e-6


def test_training_stops_after_k_good_backtests_and_the_recipe_is_there(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = TrajectoryCallback(stop_when=StopWhen(skill=-1e9, checkpoints=2))
    trainer = train(base, tmp_path, callback, max_steps=40)
    assert callback.stopped
    good = [figures for figures in callback.history if figures.backtest_skill is not None]
    assert len(good) == 2
    assert trainer.state.global_step == callback.history[-1].step < 40
    assert callback.recipe is not None
    said = capsys.readouterr().out
    assert f"relex-merge run {callback.recipe} OUT --reuse {tmp_path / 'relex_series'}" in said
    assert "target_step: 40" in callback.recipe.read_text()
    assert_gram(base, tmp_path, range(1, trainer.state.global_step + 1))


def test_the_end_says_what_was_kept_and_the_next_command(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(base, tmp_path, TrajectoryCallback(60))
    said = capsys.readouterr().out
    assert f"6 checkpoints kept in {tmp_path / 'relex_series'}. Weights say of step 60: " in said
    assert f"relex-merge inspect {tmp_path / 'relex_series' / 'relex_recipe.yml'}\n" in said


def test_16_bit_checkpoints_are_pointed_at_once(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    trainer = make_trainer(base, tmp_path, model, max_steps=3)
    TrajectoryCallback(60).attach(trainer)
    trainer.train()
    said = "the checkpoints hold bfloat16 numbers"
    assert [said in record.getMessage() for record in caplog.records].count(True) == 1
    assert said in capsys.readouterr().out


def test_without_a_target_the_recipe_says_so_and_names_none_once_the_run_is_over(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = TrajectoryCallback(stop_when=lambda history: history[-1].step == 4)
    train(base, tmp_path / "stopped", callback)
    assert callback.recipe is not None
    text = callback.recipe.read_text()
    assert text.startswith("# TrajectoryCallback was given no target_step: the one below is")
    assert yaml.safe_load(text)["parameters"]["target_step"] == 6
    assert "Weights say of step 6: " in capsys.readouterr().out
    callback = TrajectoryCallback()
    train(base, tmp_path / "over", callback)
    assert callback.recipe is not None
    text = callback.recipe.read_text()
    assert text.startswith("# TrajectoryCallback was given no target_step, and the run has reached")
    assert "parameters" not in yaml.safe_load(text)
    said = capsys.readouterr().out
    assert said.count(" --target-step N\n") == 2
    with pytest.raises(RelexError, match=r"target_step is missing.*--target-step N"):
        relex_merge.inspect(callback.recipe, quiet=True)
    assert relex_merge.inspect(callback.recipe, target_step=9, quiet=True)["target_step"] == 9


def test_the_furthest_backtest_is_logged_where_the_asked_ratio_has_none(
    base: Path, tmp_path: Path
) -> None:
    callback = TrajectoryCallback(10_000)
    trainer = train(base, tmp_path, callback)
    last = callback.history[-1]
    assert last.backtest_skill is None
    assert last.furthest_ratio is not None
    assert 1 < last.furthest_ratio <= 6
    logged = [entry for entry in trainer.state.log_history if "relex/furthest_skill" in entry]
    assert logged[-1]["relex/furthest_skill"] == last.furthest_skill
    assert logged[-1]["relex/furthest_ratio"] == last.furthest_ratio


def documented() -> set[str]:
    """The names of figures that the page on training promises in trackers."""
    page = Path(relex_merge.__file__).parents[1] / "recipes" / "training.md"
    return set(re.findall(r"`(train/relex/\w+)`", page.read_text(encoding="utf-8")))


def test_trackers_show_the_names_that_the_page_says() -> None:
    from transformers.integrations.integration_utils import rewrite_logs  # of W&B, Trackio and all

    figures = Figures(6, 6, 0.9, 0.9, 0.9, 0.3, "caution", 2.0, 0.4)
    assert set(rewrite_logs(figures.logs())) == documented()


def test_trackio_keeps_the_figures_of_a_run(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = pytest.importorskip("trackio.sqlite_storage")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = {"report_to": "trackio", "project": tmp_path.name, "run_name": "grpo"}
    trainer = make_trainer(base, tmp_path / "run", max_steps=5, **settings)
    TrajectoryCallback(6).attach(trainer)
    trainer.train()
    kept = storage.SQLiteStorage.get_all_metrics_for_run(tmp_path.name, "grpo")
    assert documented() <= set(kept)


def test_a_rule_of_ones_own_decides(base: Path, tmp_path: Path) -> None:
    callback = TrajectoryCallback(60, stop_when=lambda history: history[-1].checkpoints == 4)
    trainer = train(base, tmp_path, callback)
    assert trainer.state.global_step == 4


def _figures(skill: float | None) -> Figures:
    return Figures(1, 1, 1.0, 1.0, 1.0, skill, "caution")


@pytest.mark.parametrize(
    ("skills", "stops"),
    [
        ([0.3, 0.3], True),
        ([0.3], False),
        ([0.3, None], False),
        ([0.3, 0.1, 0.3], False),
        ([-1.0, 0.2, 0.9], True),
        ([], False),
    ],
)
def test_only_good_backtests_in_a_row_count(skills: list[float | None], stops: bool) -> None:
    assert StopWhen(skill=0.2, checkpoints=2)([_figures(skill) for skill in skills]) is stops


@pytest.mark.parametrize(("skill", "checkpoints"), [(1.0, 3), (float("nan"), 3), (0.2, 0)])
def test_a_rule_that_can_never_be_met_is_refused(skill: float, checkpoints: int) -> None:
    with pytest.raises(RelexError, match="StopWhen"):
        StopWhen(skill, checkpoints)


def test_a_resumed_run_goes_on_with_its_series(base: Path, tmp_path: Path) -> None:
    first = TrajectoryCallback(60)
    train(base, tmp_path, first)
    second = TrajectoryCallback(60)
    train(base, tmp_path, second, max_steps=9, resume=str(tmp_path / "checkpoint-6"))
    assert_gram(base, tmp_path, range(1, 10))
    assert [figures.step for figures in second.history] == list(range(2, 10))
    assert second.history[:5] == first.history


def test_a_run_resumed_from_the_middle_drops_what_lay_beyond(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path, TrajectoryCallback(60), max_steps=8, save_steps=2)
    before = read_weights(folders(tmp_path)[2])
    start = str(tmp_path / "checkpoint-4")
    callback = TrajectoryCallback(60)
    train(base, tmp_path, callback, max_steps=7, save_steps=2, max_grad_norm=1e-3, resume=start)
    assert_gram(base, tmp_path, [2, 4, 6, 7])
    after = read_weights(folders(tmp_path)[2])
    assert not all(torch.equal(before[name], after[name]) for name in after)
    assert [figures.step for figures in callback.history] == [4, 6, 7]


def test_what_was_left_by_another_run_does_not_count(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path, TrajectoryCallback(60), max_steps=4)
    train(base, tmp_path, TrajectoryCallback(60), max_steps=3, learning_rate=1e-4)
    assert_gram(base, tmp_path, [1, 2, 3])


def test_gram_matrices_of_other_weights_are_formed_anew(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path, TrajectoryCallback(60), max_steps=4)
    weights = tmp_path / "relex_series" / "step_2" / "model.safetensors"
    shutil.copy(tmp_path / "relex_series" / "step_3" / "model.safetensors", tmp_path / "spare")
    (tmp_path / "spare").replace(weights)
    train(base, tmp_path, TrajectoryCallback(60), resume=str(tmp_path / "checkpoint-4"))
    assert_gram(base, tmp_path, range(1, 7))


def test_a_fault_at_one_save_is_a_warning_and_the_next_save_catches_up(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import TrainerCallback

    class Spoiler(TrainerCallback):  # type: ignore[misc]
        """Takes the base away at step 3 and brings it back at step 4."""

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 3:
                mine.rename(away)
            if state.global_step == 4:
                away.rename(mine)

    mine, away = tmp_path / "base", tmp_path / "away"
    shutil.copytree(base, mine)
    trainer = make_trainer(mine, tmp_path / "run")
    trainer.add_callback(Spoiler())
    callback = TrajectoryCallback(60).attach(trainer)
    trainer.train()
    assert trainer.state.global_step == 6
    assert "step 3 is not part of the trajectory yet" in caplog.text
    assert [figures.step for figures in callback.history] == [2, 4, 5, 6]
    assert_gram(base, tmp_path / "run", range(1, 7))


def test_every_save_is_published_as_a_revision(
    hub: Hub, hub_login: Token, base: Path, tmp_path: Path
) -> None:
    callback = TrajectoryCallback(60, repo=REPO, private=True)
    train(base, tmp_path, callback, save_total_limit=1, max_steps=4)
    assert set(hub.heads(REPO)) == {"main", *(f"step_{step}" for step in range(1, 5))}
    assert hub.repos[REPO].private
    for folder in folders(tmp_path):
        there = hub.files(REPO, folder.name)
        assert there["model.safetensors"] == (folder / "model.safetensors").read_bytes()
        assert not any(name.endswith((".pt", ".pth")) for name in there)
        assert "training_args.bin" not in there
    card = hub.files(REPO)["README.md"].decode()
    assert "4 checkpoints of one run" in card
    assert str(tmp_path) not in card


def test_a_failing_hub_does_not_end_the_run(
    hub: Hub, hub_login: Token, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.faults.add(Fault("POST .*/commit/step_2", times=None, status=400, message="quota"))
    trainer = train(base, tmp_path, TrajectoryCallback(60, repo=REPO), max_steps=3)
    assert trainer.state.global_step == 3
    assert "quota" in caplog.text
    assert set(hub.heads(REPO)) == {"main", "step_1", "step_3"}


def test_a_token_that_may_not_write_is_found_when_training_begins(
    hub: Hub, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    hub.create_repo(REPO)
    with pytest.raises(RelexError, match="may not write"):
        train(base, tmp_path, TrajectoryCallback(60, repo=REPO))
    assert not list(tmp_path.glob("checkpoint-*"))


def test_settings_that_cannot_work_are_found_when_training_begins(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RelexError, match="save_strategy"):
        train(base, tmp_path, TrajectoryCallback(60), save_strategy="no")
    with pytest.raises(RelexError, match="does not exist"):
        train(base, tmp_path, TrajectoryCallback(60, base_model=tmp_path / "typo"))
    with pytest.raises(RelexError, match="'@' in its path"):
        train(base, tmp_path, TrajectoryCallback(60, series=tmp_path / "a@b"))
    with pytest.raises(RelexError, match="memory is -1"):
        train(base, tmp_path, TrajectoryCallback(60, memory=-1))
    with pytest.raises(RelexError, match="memory is for exact=True"):
        train(base, tmp_path, TrajectoryCallback(60, memory=10**9))
    with pytest.raises(RelexError, match="revision-format"):
        TrajectoryCallback(60, revision_format="step")

    def no_links(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(RelexError, match="save_total_limit"):
        train(base, tmp_path, TrajectoryCallback(60), save_total_limit=2)
    train(base, tmp_path, TrajectoryCallback(60), max_steps=3)
    assert (folders(tmp_path)[0] / "model.safetensors").is_symlink()
    assert_gram(base, tmp_path, [1, 2, 3])


def test_a_model_made_from_nothing_needs_a_base(base: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base)
    config.name_or_path = ""
    model = AutoModelForCausalLM.from_config(config)
    trainer = make_trainer(base, tmp_path, model=model)
    TrajectoryCallback(60).attach(trainer)
    with pytest.raises(RelexError, match="base_model="):
        trainer.train()


def test_adapters_of_a_peft_run_are_followed(base: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    trainer = make_trainer(base, tmp_path, model=get_peft_model(model, lora), max_steps=4)
    callback = TrajectoryCallback(60).attach(trainer)
    trainer.train()
    assert [figures.checkpoints for figures in callback.history] == [2, 3, 4]
    saved = SeriesStatistics.load(tmp_path / "relex_series" / "relex_gram.safetensors")
    deltas = []
    for folder in folders(tmp_path):
        state = load_file(folder / "adapter_model.safetensors")
        scaling = json.loads((folder / "adapter_config.json").read_text())["lora_alpha"] / 2
        for name, A in state.items():
            if "layers.0" in name and "lora_A" in name:
                B = state[name.replace("lora_A", "lora_B")]
                deltas.append((scaling * B.double() @ A.double()).flatten())
    M = torch.stack(deltas).numpy()
    G = saved.tensors["model.layers.0.self_attn.q_proj.weight"].gram
    np.testing.assert_allclose(G, M @ M.T, rtol=1e-6, atol=1e-12 * (M @ M.T).max())


def test_importing_relex_merge_imports_no_trainer() -> None:
    python(
        "import sys, relex_merge\n"
        "assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)\n"
        "assert relex_merge.TrajectoryCallback.__mro__[1].__name__ == 'TrainerCallback'\n"
    )


def test_its_output_folder_gives_recipe_the_base(
    base: Path, tmp_path: Path, relex: Command
) -> None:
    out = tmp_path / "out"
    train(base, out, TrajectoryCallback(60, base_model=base), max_steps=2)
    for folder in (out, out / "relex_series"):
        done = relex("recipe", folder, "--target-step", 60, "-o", tmp_path / "r.yml", "--force")
        assert done.code == 0, done.err
        assert f"base: {base} (proposed by base_model in relex_" in done.err
        settings = yaml.safe_load((tmp_path / "r.yml").read_text())
        assert settings["base_model"] == str(base)
