"""Adapters as revisions of a Hub repo: read in ranges or through the cache, pushed as one more."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file

import relex_merge
from tests.fake_hub import Hub
from tests.fake_hub.access import Token
from tests.support.adapters import Adapters, extrapolated, farthest, make_adapters, merged
from tests.support.hub_series import STREAMS
from tests.support.terminal import Command

RUN, BASE = "org/adapters", "org/base"


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Adapters:
    return make_adapters(tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def recipe(hub: Hub, series: Adapters) -> dict[str, object]:
    hub.commit_folder(BASE, series.base)
    for step, folder in zip(series.steps, series.folders, strict=True):
        hub.commit_folder(RUN, folder, branch=f"step_{step}")
    models = [{"model": f"{RUN}@step_{step}"} for step in series.steps]
    return {**series.recipe(), "base_model": BASE, "models": models}


@STREAMS
@pytest.mark.parametrize("form", ["adapter", "model"])
def test_revisions_give_what_folders_give(
    recipe: dict[str, object], series: Adapters, tmp_path: Path, stream: bool, form: str
) -> None:
    for source, out in ((recipe, "hub"), (series.recipe(), "disk")):
        relex_merge.extrapolate(
            source, tmp_path / out, form=form, stream=stream, quiet=True, figure=False
        )
    file = "adapter_model.safetensors" if form == "adapter" else "model.safetensors"
    hub, disk = load_file(tmp_path / "hub" / file), load_file(tmp_path / "disk" / file)
    assert set(hub) == set(disk)
    assert all(torch.equal(hub[name], disk[name]) for name in disk)


def test_of_the_base_only_the_header_is_fetched_for_an_adapter(
    hub: Hub, recipe: dict[str, object], series: Adapters, tmp_path: Path
) -> None:
    before = len(hub.requests())
    relex_merge.extrapolate(recipe, tmp_path / "out", stream=True, quiet=True, figure=False)
    everything = hub.requests()[before:]
    fetched = [entry for entry in everything if entry.file == "model.safetensors"]
    file = series.base / "model.safetensors"
    header = int.from_bytes(file.read_bytes()[:8], "little") + 8
    assert fetched
    assert sum(entry.sent for entry in fetched) <= header


def test_the_adapter_is_pushed_as_a_revision_that_peft_loads(
    hub: Hub,
    hub_login: Token,
    recipe: dict[str, object],
    series: Adapters,
    relex: Command,
    tmp_path: Path,
) -> None:
    relex_merge.extrapolate(recipe, tmp_path / "out", lora_rank=16, quiet=True, figure=False)
    outcome = relex("push", tmp_path / "out", "tester/adapter")
    assert outcome.code == 0, outcome.err
    assert "AutoPeftModelForCausalLM" in outcome.out
    fetched = Path(snapshot_download("tester/adapter", revision="relex-step-20"))
    card = (fetched / "README.md").read_text()
    assert "library_name: peft" in card
    assert f"base_model: {BASE}" in card
    assert "base_model_relation: adapter" in card
    assert str(tmp_path) not in (fetched / "adapter_config.json").read_text()
    base, loaded = merged(series.base, None), merged(series.base, fetched)
    found = {name: weight - base[name] for name, weight in loaded.items()}
    assert farthest(found, extrapolated(series)) < 1e-6
