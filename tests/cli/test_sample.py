"""``inspect --sample`` and ``run --gram sample``: figures from a part, and how sure they are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import relex_merge
from relex_merge.api import forecast
from relex_merge.errors import RelexError
from relex_merge.formatting import size
from relex_merge.pipeline import sampling
from tests.fake_hub import Hub
from tests.support.adapters import make_adapters
from tests.support.models import Series, make_series, write_recipe
from tests.support.streams import BASE, RUN, WEIGHTS
from tests.support.terminal import Command

pytestmark = pytest.mark.usefixtures("no_figure")
STEPS = tuple(range(1, 13))


@pytest.fixture(scope="module")
def middling(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """A dozen checkpoints of 290,000 numbers, nearly on a line. Not to be changed."""
    root = tmp_path_factory.mktemp("middling")
    return make_series(
        root, steps=STEPS, hidden_size=64, intermediate_size=256, vocab_size=2048, shards=2
    )


@pytest.fixture
def on_hub(hub: Hub, middling: Series) -> dict[str, Any]:
    """The recipe of the same series as revisions on the test Hub."""
    hub.commit_folder(BASE, middling.base)
    for step, folder in zip(middling.steps, middling.checkpoints, strict=True):
        hub.commit_folder(RUN, folder, branch=f"step_{step}")
    models = [{"model": f"{RUN}@step_{step}"} for step in STEPS]
    return {**middling.recipe(24), "base_model": BASE, "models": models}


def test_figures_of_a_sample_lie_within_their_errors(
    relex: Command, middling: Series, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "r.yml", middling.recipe(24))
    done = relex("inspect", path, "--sample", "5%", "--quiet", "--json", tmp_path / "s.json")
    assert done.code == 0, done.err
    assert "sampled: " in done.out
    assert "standard error" in done.out
    assert "±" in done.out
    report, whole = json.loads((tmp_path / "s.json").read_text()), relex_merge.inspect(path)
    sample, model = report["sample"], report["model"]
    assert 0.04 < sample["share"] < 0.06
    assert sample["numbers"] < 0.06 * sample["of"]
    assert sample["settled"]
    assert report["verdict"]["verdict"] == whole["verdict"]["verdict"]
    for figure in ("explained_variance", "r2", "straightness", "backtest_skill"):
        error = model["standard_errors"][figure]
        assert 0 < error < 0.1
        assert abs(model[figure] - whole["model"][figure]) < 5 * error
    assert model["numel"] == whole["model"]["numel"]
    norm = "model.norm.weight"  # read whole, so that there is nothing to estimate
    assert report["tensors"][norm]["standard_errors"]["straightness"] == 0
    assert report["tensors"][norm]["straightness"] == pytest.approx(
        whole["tensors"][norm]["straightness"]
    )


def test_what_a_sample_is_too_small_for_is_a_gap(middling: Series) -> None:
    report = relex_merge.inspect(middling.recipe(24), sample="0.5%", quiet=True)
    gap = next(gap for gap in report["gaps"] if gap["part"] == "tensors")
    assert "sample too small for" in gap["reason"]
    assert "at least 1,024 in 8 blocks are needed" in gap["reason"]
    small = [e for e in report["tensors"].values() if "standard_errors" not in e]
    assert small
    assert all(e["explained_variance"] is None and e["backtest_skill"] is None for e in small)
    assert report["model"]["backtest_skill"] is not None


def test_auto_goes_on_until_the_signs_are_clear_or_the_share_is_reached(middling: Series) -> None:
    said: list[str] = []
    report = relex_merge.inspect(
        middling.recipe(24), sample="auto:20%", quiet=True, notify=said.append
    )
    assert report["sample"]["settled"]
    assert report["sample"]["share"] < 0.22


def test_a_dry_run_tells_the_requests_and_bytes_of_the_run(
    relex: Command, hub: Hub, on_hub: dict[str, Any], middling: Series, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "r.yml", on_hub)
    command = ("inspect", path, "--sample", "2%", "--stream", "--quiet")
    done = relex(*command, "--dry-run")
    assert done.code == 0, done.err
    headers = hub.requests(WEIGHTS)
    assert relex(*command, "--json", tmp_path / "s.json").code == 0
    asked = hub.requests(WEIGHTS)[2 * len(headers) :]  # the run reads the headers once more
    counts = Counter(entry.commit for entry in asked)
    told = int(done.out.split("requests")[1].split()[0])
    assert max(counts.values()) == told
    assert f"to read      {size(sum(entry.sent for entry in asked))} of " in done.out
    model = json.loads((tmp_path / "s.json").read_text())["model"]
    whole = relex_merge.inspect(middling.recipe(24), quiet=True)["model"]
    error = model["standard_errors"]["explained_variance"]
    assert abs(model["explained_variance"] - whole["explained_variance"]) < 5 * error


def test_a_large_hub_series_is_sampled_unless_all_is_asked_for(
    relex: Command, on_hub: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "WORTH_SAMPLING", 1)
    path = write_recipe(tmp_path / "r.yml", on_hub)
    done = relex("inspect", path, "--quiet", "--json", tmp_path / "a.json")
    assert done.code == 0, done.err
    assert done.err.startswith("sampled: ")
    assert "--sample all reads everything" in done.err
    assert json.loads((tmp_path / "a.json").read_text())["sample"]["share"] < 0.006
    done = relex("inspect", path, "--quiet", "--sample", "all", "--json", tmp_path / "b.json")
    assert done.err == ""
    assert "sample" not in json.loads((tmp_path / "b.json").read_text())


def test_adapters_are_read_whole(tmp_path: Path) -> None:
    said: list[str] = []
    report = relex_merge.inspect(
        make_adapters(tmp_path).recipe(), sample="1%", quiet=True, notify=said.append
    )
    assert "sample" not in report
    assert "the factors of the adapters are read whole" in said[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sample", "0.01%"), "is too small for any figure; at least 1,024 in 8 blocks"),
        (("--sample", "lots"), "--sample lots: give a share (0.5%)"),
        (("--sample", "1%", "--gram", "g.safetensors"), "leave one of them out"),
    ],
)
def test_bad_samples(
    relex: Command,
    middling: Series,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_recipe(tmp_path / "r.yml", middling.recipe(24))
    done = relex("inspect", path, "--quiet", *arguments)
    assert done.code == 1
    assert message in done.err


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        found |= load_file(file)
    return found


def test_run_from_a_sample_is_near_the_exact_run_and_says_how_near(
    relex: Command, middling: Series, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "r.yml", middling.recipe(24))
    done = relex("run", "--yes", path, tmp_path / "s", "--gram", "sample:5%", "--quiet", "--yes")
    assert done.code == 0, done.err
    assert "of the update away from the exact ones" in done.err
    assert relex("run", "--yes", path, tmp_path / "e", "--quiet", "--yes").code == 0
    one, other = weights(tmp_path / "s"), weights(tmp_path / "e")
    assert one.keys() == other.keys()
    error = sum(float((one[n].double() - other[n].double()).square().sum()) for n in one) ** 0.5
    report = json.loads((tmp_path / "s" / "relex_report.json").read_text())
    told = report["sample"]["output_error"]
    assert 0.3 < told["error"] / error < 3
    assert told["error"] < 0.1 * told["update"]
    assert told["rounding"] > 0
    # What it leaves is no exact file, and says so.
    assert "sampled: " in relex("inspect", tmp_path / "s", "--quiet").out
    again = relex("run", "--yes", path, tmp_path / "x", "--reuse", tmp_path / "s", "--quiet")
    assert again.code == 1
    assert "are estimates from a sample" in again.err
    both = ("--reuse", tmp_path / "e", "--gram", "sample")
    done = relex("run", "--yes", path, tmp_path / "x", *both, "--quiet")
    assert done.code == 1
    assert "leave one of them out" in done.err
    assert relex("inspect", tmp_path / "e", "--sample", "1%", "--quiet").code == 1
    assert not (tmp_path / "x").exists()


def test_a_sampled_run_is_one_pass_whatever_the_memory(tmp_path: Path) -> None:
    recipe = make_series(tmp_path, hidden_size=64, vocab_size=16384).recipe(24)
    exact = forecast(recipe, tmp_path / "x", memory_budget=16_000_000)
    assert "passes        1, and a second one for 1 tensors" in exact
    text = forecast(recipe, tmp_path / "x", gram="sample:5%", memory_budget=16_000_000)
    assert "passes        1\n" in text
    assert "% of the numbers, " in text


@pytest.mark.parametrize("gram", ["some", "sample:all", "sample:auto"])
def test_gram_is_exact_or_a_sample(middling: Series, tmp_path: Path, gram: str) -> None:
    with pytest.raises(RelexError, match=r"--gram "):
        relex_merge.extrapolate(middling.recipe(24), tmp_path / "x", gram=gram)
