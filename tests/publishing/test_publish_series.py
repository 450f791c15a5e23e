"""``publish-series``: every local checkpoint becomes a revision, with what belongs there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import relex_merge
from relex_merge.publishing.publish_series import publish_series
from tests.fake_hub import Fault, Hub
from tests.fake_hub.access import Token
from tests.support.local_runs import SECRET, make_run
from tests.support.models import Series, expected, read_weights, worst_error
from tests.support.terminal import Command

REPO = "tester/series"
PUBLISHED = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
}


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, Series]:
    return make_run(tmp_path)


def commits(hub: Hub) -> int:
    return len(hub.requests("POST .*/commit/step_"))


def test_each_checkpoint_is_one_commit_of_weights_config_and_tokenizer(
    hub: Hub, hub_login: Token, relex: Command, run: tuple[Path, Series]
) -> None:
    folder, series = run
    done = relex("publish-series", folder, REPO, "--quiet")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{hub.url}/{REPO}: 3 published, 0 complete before\n"
    assert set(hub.heads(REPO)) == {"main", "step_5", "step_10", "step_15"}
    assert commits(hub) == 3
    for checkpoint, step in zip(series.checkpoints, series.steps, strict=True):
        there = hub.files(REPO, f"step_{step}")
        assert set(there) == PUBLISHED
        for name in PUBLISHED - {"config.json"}:
            assert there[name] == (checkpoint / name).read_bytes()


def test_no_local_path_and_no_token_is_published(
    hub: Hub, hub_login: Token, run: tuple[Path, Series]
) -> None:
    folder, series = run
    publish_series(folder, REPO, base=str(series.base), quiet=True)
    for branch in hub.heads(REPO):
        for name, content in hub.files(REPO, branch).items():
            for secret in (SECRET, "jane", str(folder.parent), hub_login.value):
                assert secret.encode() not in content, (branch, name)
    config = json.loads(hub.files(REPO, "step_5")["config.json"])
    assert config["_name_or_path"] == "base"
    assert (
        json.loads((series.checkpoints[0] / "config.json").read_text())["_name_or_path"] == SECRET
    )


def test_shards_go_with_their_index(hub: Hub, hub_login: Token, tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path, shards=2)
    publish_series(folder, REPO, quiet=True)
    shards = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
    wanted = (PUBLISHED - {"model.safetensors"}) | shards | {"model.safetensors.index.json"}
    assert set(hub.files(REPO, "step_10")) == wanted


def test_an_adapter_is_published_and_loads_from_its_base(
    hub: Hub, hub_login: Token, tmp_path: Path
) -> None:
    for step in (5, 10):
        folder = tmp_path / "run" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        save_file(
            {"a.lora_A.weight": torch.full((2, 3), step)}, folder / "adapter_model.safetensors"
        )
        config = {"base_model_name_or_path": SECRET, "r": 2, "peft_type": "LORA"}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        (folder / "README.md").write_text(SECRET)
        (folder / "optimizer.pt").touch()
    publish_series(tmp_path / "run", REPO, base="org/base", quiet=True)
    there = hub.files(REPO, "step_10")
    assert set(there) == {"adapter_config.json", "adapter_model.safetensors"}
    assert json.loads(there["adapter_config.json"])["base_model_name_or_path"] == "org/base"
    card = hub.files(REPO)["README.md"].decode()
    assert "AutoPeftModelForCausalLM" in card
    assert "base_model_relation: adapter" in card


def test_code_of_the_model_goes_with_it_and_of_the_trainer_not(
    hub: Hub, hub_login: Token, run: tuple[Path, Series]
) -> None:
    folder, series = run
    for checkpoint in series.checkpoints:
        config = json.loads((checkpoint / "config.json").read_text())
        config["auto_map"] = {"AutoModel": "modeling.Model"}
        (checkpoint / "config.json").write_text(json.dumps(config))
        (checkpoint / "modeling.py").write_text("class Model: ...\n")
    publish_series(folder, REPO, quiet=True)
    assert set(hub.files(REPO, "step_5")) == {*PUBLISHED, "modeling.py"}


def test_what_is_complete_is_skipped_by_its_content(
    hub: Hub, hub_login: Token, run: tuple[Path, Series], relex: Command
) -> None:
    folder, _ = run
    publish_series(folder, REPO, observe="5-10", quiet=True)
    heads = hub.heads(REPO)
    hub.log.clear()
    done = relex("publish-series", folder, REPO)
    assert done.code == 0, done.err
    assert "1 published, 2 complete before" in done.out
    assert "step_5 is complete already" in done.err
    assert commits(hub) == 1
    assert {n: s for n, s in hub.heads(REPO).items() if n in ("step_5", "step_10")} == {
        n: s for n, s in heads.items() if n != "main"
    }
    hub.log.clear()
    assert publish_series(folder, REPO, quiet=True).before == (5, 10, 15)
    assert not hub.requests(r"POST .*/commit/|PUT ")


@pytest.mark.parametrize("changed", ["model.safetensors", "generation_config.json"])
def test_a_revision_with_other_content_is_refused_before_any_upload(
    hub: Hub, hub_login: Token, run: tuple[Path, Series], relex: Command, changed: str
) -> None:
    folder, series = run
    publish_series(folder, REPO, observe="15", quiet=True)
    path = series.checkpoints[-1] / changed
    content = path.read_bytes()
    path.write_bytes(content[:-2] + content[-2:][::-1])  # as long as before
    if changed.endswith("json"):
        path.write_bytes(b'{"do_sample": true }')
    before = hub.heads(REPO)
    hub.log.clear()
    done = relex("publish-series", folder, REPO, "--quiet")
    assert done.code == 1
    assert re.search(r"step_15 with other content.*--revision-format.*branch delete", done.err)
    assert hub.heads(REPO) == before
    assert not hub.requests(r"POST .*/(commit|branch|batch)|PUT ")


def test_a_run_that_was_killed_between_branch_and_commit_goes_on(
    hub: Hub, hub_login: Token, run: tuple[Path, Series]
) -> None:
    folder, _ = run
    publish_series(folder, REPO, observe="5", quiet=True)
    hub.branch(REPO, "step_10", at="main")
    hub.commit(REPO, {"other.txt": "main goes on"})
    result = publish_series(folder, REPO, quiet=True)
    assert (result.published, result.before) == ((10, 15), (5,))
    assert set(hub.files(REPO, "step_10")) == PUBLISHED


def test_a_failure_in_the_middle_leaves_whole_revisions_and_can_be_repeated(
    hub: Hub, hub_login: Token, run: tuple[Path, Series], relex: Command, no_waiting: list[float]
) -> None:
    folder, _ = run
    hub.faults.add(Fault("POST .*/commit/step_10", times=None, status=400, message="disk full"))
    done = relex("publish-series", folder, REPO, "--quiet")
    assert done.code == 1
    assert "disk full" in done.err
    assert set(hub.heads(REPO)) == {"main", "step_5"}
    hub.faults.clear()
    assert publish_series(folder, REPO, quiet=True).before == (5,)
    assert set(hub.heads(REPO)) == {"main", "step_5", "step_10", "step_15"}


def test_the_card_lists_steps_and_base_and_its_recipe_extrapolates_the_run(
    hub: Hub, hub_login: Token, tmp_path: Path
) -> None:

    folder, series = make_run(tmp_path, steps=(2, 4, 6, 9, 12))
    (series.base / "README.md").write_text("---\nlicense: mit\n---\n")
    hub.commit_folder("org/base", series.base)
    publish_series(folder, REPO, base="org/base", quiet=True)
    text = hub.files(REPO)["README.md"].decode()
    data = yaml.safe_load(text.split("---")[1])
    assert data["base_model"] == "org/base"
    assert data["license"] == "mit"
    for step in series.steps:
        assert (
            f"| {step} | [`step_{step}`](https://huggingface.co/{REPO}/tree/step_{step}) |" in text
        )
    assert f'from_pretrained("{REPO}", revision="step_12")' in text
    assert "relex-merge run recipe.yml OUT" in text
    recipe = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])
    assert [entry["model"] for entry in recipe["models"]] == [
        f"{REPO}@step_{{2..6..2}}",
        f"{REPO}@step_{{9..12..3}}",
    ]
    assert recipe["parameters"]["target_step"] == 100  # max_steps of the trainer
    relex_merge.extrapolate(recipe, tmp_path / "out", quiet=True, figure=False)
    assert worst_error(read_weights(tmp_path / "out"), expected(series, 100)) < 1e-6


def test_the_card_of_a_later_run_lists_earlier_steps_too(
    hub: Hub, hub_login: Token, run: tuple[Path, Series]
) -> None:
    folder, _ = run
    publish_series(folder, REPO, observe="5,10", quiet=True)
    publish_series(folder, REPO, observe="15", quiet=True)
    assert "3 checkpoints of one run, step 5 to 15" in hub.files(REPO)["README.md"].decode()


def test_a_card_that_is_not_ours_is_left_alone(
    hub: Hub, hub_login: Token, run: tuple[Path, Series], relex: Command
) -> None:
    folder, _ = run
    hub.commit(REPO, {"README.md": "mine", "weights.bin": "mine"})
    done = relex("publish-series", folder, REPO)
    assert done.code == 0
    assert "left as it is" in done.err
    assert hub.files(REPO) == {"README.md": b"mine", "weights.bin": b"mine"}
    assert set(hub.files(REPO, "step_5")) == PUBLISHED


@pytest.mark.parametrize(
    ("text", "names", "model"),
    [
        ("v1.00-step-{step}", {"v1.00-step-5", "v1.00-step-10"}, "v1.00-step-{5..10..5}"),
        (
            "main-step-{step:05d}",
            {"main-step-00005", "main-step-00010"},
            "main-step-{00005..00010..5}",
        ),
        ("ckpt/{step}-a2", {"ckpt/5-a2", "ckpt/10-a2"}, None),
    ],
)
def test_revisions_are_named_as_asked_and_the_recipe_finds_their_steps(
    hub: Hub,
    hub_login: Token,
    run: tuple[Path, Series],
    text: str,
    names: set[str],
    model: str | None,
) -> None:
    folder, _ = run
    publish_series(folder, REPO, revision_format=text, observe="5,10", quiet=True)
    assert set(hub.heads(REPO)) == {"main", *names}
    card = hub.files(REPO)["README.md"].decode()
    models = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", card, re.DOTALL)[0])["models"]
    if model is None:
        assert [entry["parameters"]["step"] for entry in models] == [5, 10]
    else:
        assert models == [{"model": f"{REPO}@{model}"}]


def test_a_new_repo_is_private_when_asked_for(
    hub: Hub, hub_login: Token, run: tuple[Path, Series]
) -> None:
    publish_series(run[0], REPO, private=True, quiet=True)
    assert hub.repos[REPO].private


def test_the_published_weights_load(hub: Hub, hub_login: Token, run: tuple[Path, Series]) -> None:
    from huggingface_hub import hf_hub_download

    publish_series(run[0], REPO, quiet=True)
    there = load_file(hf_hub_download(REPO, "model.safetensors", revision="step_10"))
    for name, weight in run[1].states[1].items():
        assert torch.equal(there[name], weight)


def test_the_runs_own_step_0_is_the_base_of_the_recipe(
    hub: Hub, hub_login: Token, tmp_path: Path
) -> None:
    folder, series = make_run(tmp_path, steps=(0, 5, 10))
    for checkpoint in series.checkpoints:
        config = json.loads((checkpoint / "config.json").read_text())
        (checkpoint / "config.json").write_text(json.dumps({**config, "_name_or_path": ""}))
    publish_series(folder, REPO, quiet=True)
    text = hub.files(REPO)["README.md"].decode()
    assert "base_model" not in text.split("---")[1]
    recipe = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])
    assert recipe["base_model"] == f"{REPO}@step_0"
    report = relex_merge.inspect(recipe, quiet=True)
    assert [item["step"] for item in report["checkpoints"]] == [5, 10]
