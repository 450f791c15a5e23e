"""What is sent: nothing of this machine is in the configurations that libraries write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from relex_merge.checkpoints.complete import check_finished
from relex_merge.errors import RelexError
from relex_merge.publishing.payload import contents, publishable
from relex_merge.publishing.publish_series import publish_series
from relex_merge.publishing.push import push
from tests.fake_hub import Hub
from tests.fake_hub.access import Token
from tests.support.local_runs import make_run
from tests.support.outputs import REPO, make_output, make_report

CONFIGS = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "adapter_config.json",
)
PRIVATE = {
    "token": "a-token-of-an-unusual-form",
    "use_auth_token": True,
    "HF_TOKEN": "hf_TokenInAConfigDoNotPrint",
    "api_key": "sk-123",
    "cache_dir": "/scratch/alice/cache",
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return make_output(tmp_path / "out")


def sent(out: Path, name: str) -> Any:
    content = publishable(check_finished(out), REPO, None)[name]
    text = content.decode() if isinstance(content, bytes) else content.read_text()
    return json.loads(text)


@pytest.mark.parametrize("name", CONFIGS)
def test_secrets_and_paths_are_left_out_of_every_configuration_however_deep(
    out: Path, name: str
) -> None:
    def config(source: str, **more: Any) -> dict[str, Any]:
        return {"_name_or_path": source, "bos_token": "<s>", **more}

    written = config(
        "/data/alice/base",
        text_config=config("../alice/text", **PRIVATE),
        parts=[config("models/alice/part", **PRIVATE), "/no_think"],
        tokenizer_file="/data/alice/tokenizer.json",
        said="asked with hf_TokenInAConfigDoNotPrint",
        **PRIVATE,
    )
    (out / name).write_text(json.dumps(written))
    assert sent(out, name) == config(
        "base",
        text_config=config("text"),
        parts=[config("part"), "/no_think"],
        tokenizer_file="tokenizer.json",
        said="asked with hf_***",
    )


def test_a_path_that_is_on_this_disk_goes_wherever_it_stands(out: Path) -> None:
    written = {"model_type": "qwen2", "dataset": str(out), "stop": "/bin", "base": "org/name"}
    (out / "config.json").write_text(json.dumps(written))
    assert sent(out, "config.json") == {**written, "dataset": "out"}


def test_a_configuration_without_anything_private_is_sent_as_it_is(out: Path) -> None:
    text = '{"_name_or_path":"org/name",\n"eos_token":  "</s>", "vocab_file": "vocab.json"}'
    (out / "tokenizer_config.json").write_text(text)
    assert publishable(check_finished(out), REPO, None)["tokenizer_config.json"] == (
        out / "tokenizer_config.json"
    )


def test_relative_paths_leave_recipe_and_card(out: Path) -> None:
    recipe = yaml.safe_load((out / "mergekit_config.yml").read_text())
    written = ["../jane/run_a/checkpoint-50", "jane/run_b/checkpoint-50"]
    recipe["models"] = [{"model": model} for model in written]
    text = yaml.safe_dump(recipe)
    (out / "mergekit_config.yml").write_text(text)
    (out / "README.md").write_text(f"# mine\n\n```yaml\n{text}```\n")
    files = publishable(check_finished(out), REPO, None)
    made = files["mergekit_config.yml"]
    assert isinstance(made, bytes)
    assert [entry["model"] for entry in yaml.safe_load(made)["models"]] == [
        "run_a/checkpoint-50",
        "run_b/checkpoint-50",
    ]
    card = files["README.md"]
    assert isinstance(card, bytes)
    assert b"jane" not in card + made
    assert json.loads(json.dumps(make_report()))  # the report has the same folders, absolute


@pytest.mark.parametrize("name", ["tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"[" * 100_000])
def test_a_broken_configuration_is_named_before_any_request(
    hub: Hub, hub_login: Token, out: Path, name: str, content: bytes
) -> None:
    (out / name).write_bytes(content)
    with pytest.raises(RelexError, match=rf"{out / name} is no.*copy it from the model"):
        push(out, REPO)
    assert not hub.requests()


def test_a_card_that_is_no_text_is_named(out: Path) -> None:
    (out / "README.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RelexError, match=r"README\.md is no text"):
        publishable(check_finished(out), REPO, None)


def test_an_adapter_that_gets_its_bases_name_loses_its_secrets_all_the_same(
    tmp_path: Path,
) -> None:
    (tmp_path / "adapter_model.safetensors").touch()
    config = {"base_model_name_or_path": "/data/alice/base", "r": 2, **PRIVATE}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    made = contents(tmp_path, REPO, "org/base")["adapter_config.json"]
    assert isinstance(made, bytes)
    assert json.loads(made) == {"base_model_name_or_path": "org/base", "r": 2}


def test_a_series_is_published_without_secrets(hub: Hub, hub_login: Token, tmp_path: Path) -> None:
    folder, series = make_run(tmp_path, steps=(5, 10))
    for checkpoint in series.checkpoints:
        for name in ("tokenizer_config.json", "preprocessor_config.json"):
            (checkpoint / name).write_text(json.dumps({"size": 1, "deep": PRIVATE, **PRIVATE}))
    publish_series(folder, REPO, quiet=True)
    there = hub.files(REPO, "step_10")
    for name in ("tokenizer_config.json", "preprocessor_config.json"):
        assert json.loads(there[name]) == {"size": 1, "deep": {}}
