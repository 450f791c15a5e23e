"""Promises about series on the Hub: branches, tags, commits and folders, by the real client."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import relex_merge
from relex_merge.checkpoints.find import find
from relex_merge.checkpoints.hub_details import LOOKED_INTO, look_into
from relex_merge.checkpoints.locate import locate
from relex_merge.checkpoints.series import NothingFoundError
from relex_merge.cli.series_table import render
from relex_merge.errors import RelexError
from relex_merge.recipe.draft import draft
from tests.fake_hub import Hub
from tests.fake_hub.access import Token
from tests.support.models import Series, make_config, make_state, write_model
from tests.support.trainer_run import PLANNED, SAVED, train

RUN = "org/run"
BASE = "org/base"
CARD = f"---\nbase_model: {BASE}\n---\n# a run\n"


def adapter_files(folder: Path) -> dict[str, bytes]:
    """An adapter whose weights are those of some model."""
    config = {"peft_type": "LORA", "base_model_name_or_path": BASE, "r": 8}
    return {
        "adapter_config.json": json.dumps(config).encode(),
        "adapter_model.safetensors": (folder / "model.safetensors").read_bytes(),
    }


def below(folder: Path, name: str) -> dict[str, bytes | str | Path | None]:
    return {f"{name}/{path.name}": path for path in folder.iterdir()}


# branches and tags


@pytest.mark.parametrize(
    "name",
    [
        "step_{}",
        "step-{:09d}",
        "main-step-{:09d}",
        "v1.00-step-{}",
        "global_step_{}",
        "checkpoint-{}",
        "ckpt/{}",
    ],
)
@pytest.mark.parametrize("layout", ["branches", "tags"])
def test_steps_in_the_names_of_branches_and_tags(
    hub: Hub, series: Series, name: str, layout: str
) -> None:
    shas = {}
    for step in (50, 9, 100):
        shas[step] = hub.commit_folder(RUN, series.checkpoints[0], message="a save")
        (hub.branch if layout == "branches" else hub.tag)(RUN, name.format(step))
    hub.commit(RUN, {"README.md": CARD})
    found = find(RUN)
    assert (found.source, found.layout, found.steps) == (RUN, layout, [9, 50, 100])
    references = [f"{RUN}@{name.format(step)}" for step in (9, 50, 100)]
    assert [c.reference for c in found.checkpoints] == references
    assert [c.sha for c in found.checkpoints] == [shas[step] for step in (9, 50, 100)]
    assert found.base is not None
    assert (found.base.reference, found.last_step) == (BASE, 100)
    assert found.base.found_in == f"base_model in the model card of {RUN}"
    # and each can be read from its reference as it stands
    text = draft(found, base=str(series.base), target_step=500).text
    assert "parameters: {step" not in text


def test_size_dtype_and_date_are_looked_up_for_what_is_observed(hub: Hub, series: Series) -> None:
    for step in (1, 2, 3, 4):
        hub.commit_folder(RUN, series.checkpoints[0], branch=f"step_{step}")
    found = look_into(find(RUN), [1, 2])
    size = (series.checkpoints[0] / "model.safetensors").stat().st_size
    assert [(c.size, c.dtype) for c in found.checkpoints[:2]] == [(size, "F32")] * 2
    assert found.checkpoints[0].date is not None
    assert found.checkpoints[2].size is None


def test_our_own_extrapolations_are_no_checkpoints(hub: Hub, series: Series) -> None:
    for name in ("step_1", "step_2", "relex-step-500"):
        hub.commit_folder(RUN, series.checkpoints[0], branch=name)
    found = find(RUN, r"step[_-](\d+)")
    assert found.steps == [1, 2]
    assert any("relex-step-500" in note for note in found.notes)


def test_names_that_mergekit_cannot_parse_are_read_by_commit(hub: Hub, series: Series) -> None:
    for name in ("a+step_1", "a+step_2"):
        hub.commit_folder(RUN, series.checkpoints[0], branch=name)
    assert [c.reference for c in find(RUN).checkpoints] == [
        f"{RUN}@{hub.heads(RUN)[name]}" for name in ("a+step_1", "a+step_2")
    ]


# commits


def test_commits_as_the_trainer_pushes_them(hub: Hub, series: Series) -> None:
    shas = {}
    for step, folder in zip((500, 1000, 1500), series.checkpoints, strict=False):
        shas[step] = hub.commit_folder(RUN, folder, message=f"Training in progress, step {step}")
        hub.commit(RUN, {"log.txt": str(step)}, message=f"Upload {step} files")
    hub.commit(RUN, {"README.md": CARD}, message="End of training")
    found = find(RUN)
    assert (found.layout, found.steps, found.notes) == ("commits", [500, 1000, 1500], ())
    assert {c.step: c.reference for c in found.checkpoints} == {
        step: f"{RUN}@{sha}" for step, sha in shas.items()
    }
    text = draft(found, base=str(series.base), target_step=5000).text
    assert f"  - model: {RUN}@{shas[500]}\n    parameters: {{step: 500}}\n" in text


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "all_checkpoints"])
def test_what_the_real_trainer_pushes(
    strategy: str, hub: Hub, hub_login: Token, tmp_path: Path
) -> None:
    how = {"push_to_hub": True, "hub_model_id": "tester/run", "hub_strategy": strategy}
    base, _ = train(tmp_path, **how)
    found = find("tester/run")
    assert found.steps == list(SAVED)
    # commits of the optimizer's folder do not say what the model on top is
    assert not any(", checkpoint" in note for note in found.notes)
    folders = strategy == "all_checkpoints"
    assert found.layout == ("subfolders" if folders else "commits")
    if not folders:
        titles = {commit.sha: commit.title for commit in hub.history("tester/run")}
        assert [titles[str(c.sha)] for c in found.checkpoints] == [
            f"Training in progress, step {step}" for step in SAVED
        ]
    assert found.last_step == (PLANNED if folders else SAVED[-1])
    made = draft(found, base=str(base))
    assert not any("the same" in note for note in made.series.notes)
    path = tmp_path / "r.yml"
    path.write_text(made.text)
    read = relex_merge.inspect(path, target_step=20, quiet=True)
    same = draft(find(str(tmp_path / "out")), base=str(base))
    path.write_text(same.text)
    assert read["tensors"] == relex_merge.inspect(path, target_step=20, quiet=True)["tensors"]


def test_steps_that_hold_the_same_weights_are_pointed_out(hub: Hub, series: Series) -> None:
    for step, folder in zip((1, 2, 3), series.checkpoints, strict=False):
        hub.commit_folder(RUN, folder, branch=f"step_{step}")
    hub.branch(RUN, "step_4", at="step_3")
    notes = look_into(find(RUN), [1, 2, 3, 4]).notes
    assert "the weights of these steps are the same: 3 = 4" in notes


@pytest.mark.parametrize("layout", ["branches", "folders"])
def test_a_server_that_tells_neither_sizes_nor_ids(hub: Hub, series: Series, layout: str) -> None:
    hub.commit_folder(BASE, series.base)
    for step, folder in zip((1, 2, 3), series.checkpoints, strict=False):
        if layout == "branches":
            hub.commit_folder(RUN, folder, branch=f"step_{step}")
        else:
            hub.commit(RUN, below(folder, f"step_{step}"))
    hub.tells_blobs = False
    made = draft(find(RUN), base=BASE, target_step=9)
    assert len(made.chosen) == 3
    assert not [note for note in made.series.notes if "the same" in note]
    assert {checkpoint.size for checkpoint in made.chosen} == {None}
    table = render(made.series, made.chosen, made.base)
    assert "0 B" not in table
    assert table.count("–  F32") == 3


def test_a_run_that_was_started_again_keeps_its_newest_commits(hub: Hub, series: Series) -> None:
    for step in (10, 20, 10, 20, 30):
        newest = hub.commit_folder(
            RUN, series.checkpoints[0], message=f"Training in progress, step {step}"
        )
    found = find(RUN)
    assert found.steps == [10, 20, 30]
    assert found.checkpoints[-1].sha == newest
    history = [commit.sha for commit in hub.history(RUN)]
    assert [c.sha for c in found.checkpoints] == [history[2], history[1], history[0]]
    assert sum("is there twice" in note for note in found.notes) == 2


def test_commits_on_a_branch_that_is_not_main(hub: Hub, series: Series) -> None:
    for step in (1, 2):
        hub.commit_folder(RUN, series.checkpoints[0], branch="ppo", message=f"step {step}")
    with pytest.raises(NothingFoundError):
        find(RUN)
    assert find(f"{RUN}@ppo").steps == [1, 2]


# folders of one revision


@pytest.mark.parametrize("name", ["checkpoint-{}", "global_step_{}/actor/huggingface", "a/b/{}"])
def test_folders_of_one_revision(hub: Hub, series: Series, name: str) -> None:
    for step in (50, 9, 100):
        state = {"trainer_state.json": b'{"max_steps": 750, "global_step": 100}'}
        files = below(series.checkpoints[0], name.format(step))
        files |= {f"{name.format(step)}/{file}": data for file, data in state.items()}
        # what lies inside a checkpoint, or beside the policy, is no checkpoint
        files |= below(series.checkpoints[0], f"{name.format(step)}/teacher_7")
        files |= below(series.checkpoints[0], f"critic/step_{step}")
        sha = hub.commit(RUN, files, message="upload")
    found = find(f"{RUN}@main")
    assert (found.layout, found.steps, found.last_step) == ("subfolders", [9, 50, 100], 750)
    assert [c.reference for c in found.checkpoints] == [
        f"{RUN}/{name.format(step)}@main" for step in (9, 50, 100)
    ]
    assert {c.sha for c in found.checkpoints} == {sha}
    assert found.notes == ()
    size = (series.checkpoints[0] / "model.safetensors").stat().st_size
    detailed = look_into(found, found.steps).checkpoints
    assert [(c.size, c.dtype) for c in detailed] == [(size, "F32")] * 3
    assert all(c.date for c in detailed)


def test_folders_below_a_folder_and_of_a_branch(hub: Hub, series: Series) -> None:
    for step in (1, 2):
        for run in ("a", "b"):
            files = below(series.checkpoints[0], f"runs/{run}/checkpoint-{step}")
            hub.commit(RUN, files, branch="all")
    found = find(f"{RUN}/runs/b@all")
    assert [c.reference for c in found.checkpoints] == [
        f"{RUN}/runs/b/checkpoint-{step}@all" for step in (1, 2)
    ]
    assert find(f"{RUN}@all").notes  # two runs: the choice is explained


def test_folders_without_weights_are_named(hub: Hub, series: Series) -> None:
    for step in (1, 2):
        hub.commit(RUN, below(series.checkpoints[0], f"checkpoint-{step}"))
    hub.commit(RUN, {"checkpoint-3/config.json": b"{}"})
    hub.commit(RUN, {"global_step_4/actor/model_world_size_1_rank_0.pt": b"x"})
    found = find(RUN)
    assert found.steps == [1, 2]
    notes = "\n".join(found.notes)
    assert "checkpoint-3 was left out: it has no weights" in notes
    assert f"hf download {RUN} --include 'global_step_4/actor/*' --local-dir run" in notes
    assert "relex-merge recipe run" in notes


# choices


def test_of_branches_folders_and_commits_the_choice_is_explained(hub: Hub, series: Series) -> None:
    folder = series.checkpoints[0]
    for step in (1, 2, 3):
        hub.commit_folder(RUN, folder, branch=f"step_{step}")
    for step in (10, 20):
        hub.commit(RUN, below(folder, f"checkpoint-{step}"), message=f"Upload step {step}")
    found = find(RUN)
    assert (found.layout, found.steps) == ("branches", [1, 2, 3])
    note = found.notes[0]
    assert "took branches step_{step} (3 models, steps 1 to 3), which has the most" in note
    assert "subfolders checkpoint-{step} (2 models, steps 10 to 20)" in note
    assert 'commits "Upload step {step}"' in note
    assert find(RUN, r"checkpoint-(\d+)").layout == "subfolders"
    assert find(RUN, r"Upload step (\d+)").layout == "commits"


def test_adapters_on_the_hub(hub: Hub, series: Series) -> None:
    files = adapter_files(series.checkpoints[0])
    for step in (1, 2, 3):
        hub.commit(RUN, files, branch=f"step_{step}")
    hub.commit_folder(RUN, series.checkpoints[0], branch="step_4")
    found = look_into(find(RUN), [1, 2, 3, 4])
    assert [(c.step, c.kind) for c in found.checkpoints] == [(s, "adapter") for s in (1, 2, 3)]
    assert any("adapters and whole models" in note and "step 4" in note for note in found.notes)
    assert found.base is not None
    assert found.base.reference == BASE


# how much is asked of the Hub


def test_a_long_series_costs_few_requests(hub: Hub, series: Series) -> None:
    sha = hub.commit_folder(RUN, series.checkpoints[0], branch="step_1")
    for step in range(2, 501):
        hub.branch(RUN, f"step_{step}", at=sha)
    found = find(RUN)
    assert len(found.checkpoints) == 500
    assert len(hub.requests()) < 20
    look_into(found, found.steps)
    assert len(hub.requests("/revision/")) <= LOOKED_INTO + 10
    assert hub.log.most_at_once("/revision/") > 1


def test_lists_of_commits_and_of_folders_have_pages(hub: Hub, series: Series) -> None:
    hub.commits_page_size, hub.page_size = 7, 3
    folder = series.checkpoints[0]
    for step in range(1, 31):
        hub.commit(
            RUN,
            {f"step_{step}/{name}": folder / name for name in ("config.json", "model.safetensors")},
            message=f"Training in progress, step {step}",
        )
    found = find(RUN, r"in progress, step (\d+)")
    assert found.steps == list(range(1, 31))
    assert len(hub.requests("/commits/main")) == 5
    folders = look_into(find(RUN, r"^step_(\d+)$"), range(1, 31))
    assert folders.layout == "subfolders"
    assert all(c.date for c in folders.checkpoints)
    assert len(hub.requests("/tree/")) > 5


# bad input


def test_nothing_found_says_what_was_looked_for_and_what_is_there(hub: Hub) -> None:
    hub.commit(RUN, {"docs/a.txt": "x"}, message="first words", branch="draft")
    with pytest.raises(NothingFoundError) as caught:
        find(RUN)
    message = str(caught.value)
    assert f"no checkpoints in {RUN}: looked for step_N, checkpoint-N" in message
    assert "branches draft, main" in message
    with pytest.raises(NothingFoundError, match=r"'epoch_.*folders docs; commits \"first words\""):
        find(f"{RUN}@draft", r"epoch_(\d+)")


def test_names_that_the_hub_does_not_have_or_take(hub: Hub, tmp_path: Path) -> None:
    for look in (find, lambda reference: locate([reference])):
        with pytest.raises(RelexError, match="org/nothing is not on the Hub") as caught:
            look("org/nothing")
        assert caught.value.__cause__ is not caught.value  # who follows the causes comes to an end
    with pytest.raises(RelexError, match="is no folder on this disk and no name of a Hub repo"):
        find("my run/checkpoints here")
    with pytest.raises(RelexError, match="no name of a Hub repo"):
        find("org/bad--name")
    assert not hub.requests("bad--name")
    with pytest.raises(RelexError, match="runs/grpo/exp is no folder on this disk, and it cannot"):
        find("runs/grpo/exp")
    hub.commit(RUN, {"a": "b"})
    with pytest.raises(RelexError, match=f"{RUN} has no revision step_7"):
        find(f"{RUN}@step_7")


def test_checkpoints_without_weights_are_left_out_or_refused(hub: Hub, series: Series) -> None:
    for step in (1, 2, 3):
        hub.commit_folder(RUN, series.checkpoints[0], branch=f"step_{step}")
    hub.commit(RUN, {"model.safetensors": None}, branch="step_2")
    found = look_into(find(RUN), [1, 2, 3])
    assert found.steps == [1, 3]
    assert any(f"{RUN}@step_2 was left out: it has no weights" in note for note in found.notes)
    for step in (1, 3):
        hub.commit(RUN, {"model.safetensors": None}, branch=f"step_{step}")
    with pytest.raises(NothingFoundError, match=r"no checkpoint with weights.*config\.json"):
        look_into(find(RUN), [1, 2, 3])


def test_models_of_two_sizes_in_one_series(hub: Hub, series: Series, tmp_path: Path) -> None:
    config = make_config(hidden_size=32)
    other = write_model(tmp_path / "other", config, make_state(config))
    for step in (1, 2, 3):
        folder = other if step == 2 else series.checkpoints[0]
        hub.commit_folder(RUN, folder, branch=f"step_{step}")
    with pytest.raises(RelexError, match=r"different models: .*hidden_size 16.*step_2 .*size 32"):
        look_into(find(RUN), [1, 2, 3])
