"""``demo --lora`` keeps its promises: adapters from the first step to the extrapolated end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from relex_merge.demo.evaluate import evaluate
from relex_merge.demo.model import build_tokenizer, load_model, one_thread
from relex_merge.demo.settings import Lora
from relex_merge.errors import RelexError
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
from tests.support.first_digit import TASK
from tests.support.models import Series

END = f"relex/step-{TOTAL}"
RATE = 3e-4


@pytest.fixture(scope="module", name="adapter_demo")
def _adapter_demo(small_demo: None, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A demo of an adapter from nothing to its end. Not to be changed."""

    def offline(*_: object) -> None:
        raise OSError("the demo must not ask the network")

    out = tmp_path_factory.mktemp("adapters") / "out"
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.socket.connect", offline)
        result = run_small(out, lora=True, lr=RATE, quick=False, echo=said.append)
    return Finished(out, "\n".join(said), result)


def load_adapter(adapter_demo: Finished, folder: str) -> Any:
    """As any user of PEFT loads it."""
    return PeftModel.from_pretrained(
        load_model(adapter_demo.out / "base"), adapter_demo.out / folder
    )


def merged(adapter_demo: Finished, folder: str) -> dict[str, torch.Tensor]:
    """The base's weights with the adapter in ``folder`` merged in, in float64."""
    model = load_adapter(adapter_demo, folder).double().merge_and_unload()
    return dict(model.state_dict())


def adapter_weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "adapter_model.safetensors")
    return found


def test_every_checkpoint_is_an_adapter_on_the_base_of_a_demo_without_lora(
    adapter_demo: Finished, real_series: Series
) -> None:
    for step in range(1, TOTAL + 1):
        folder = adapter_demo.out / f"series/step_{step}"
        assert {w.shape for n, w in adapter_weights(folder).items() if "q_proj.lora_A" in n} == {
            (Lora().rank, 32)
        }
        assert not list(folder.glob("model*"))
    assert_same_bits(adapter_demo.out / "base", real_series.base)


def test_the_demo_ends_with_an_adapter_that_peft_loads(adapter_demo: Finished) -> None:
    base, end = weights(adapter_demo.out / "base"), merged(adapter_demo, END)
    changed = {name for name, weight in base.items() if not torch.equal(weight.double(), end[name])}
    assert changed == {name for name in base if "_proj.weight" in name}


def test_accuracies_are_those_of_the_adapters_in_out(adapter_demo: Finished) -> None:
    settings = small_settings()
    tokenizer, held_out = build_tokenizer(TASK), small_split(settings).held_out
    folders = {
        "last observed": f"series/step_{STEPS}",
        "RELEX": END,
        "two-point line": "two-point",
        "real RLVR": f"series/step_{TOTAL}",
    }
    assert [row.name for row in adapter_demo.result.rows if row.name in folders] == list(folders)
    for name, folder in folders.items():
        model = load_adapter(adapter_demo, folder)
        with one_thread():
            again = evaluate(model, tokenizer, TASK, held_out, settings.stream("evaluation"))
        assert again == adapter_demo.result.row(name).accuracy, name


def test_reinforcement_moved_the_adapter_where_the_reward_is(adapter_demo: Finished) -> None:
    rows = adapter_demo.result.row
    assert rows("real RLVR").accuracy.sampled > rows("base").accuracy.sampled + 0.05
    assert rows("last observed").rollouts == STEPS * RLVR.rollouts


def test_the_two_point_line_goes_through_base_and_last_observed(adapter_demo: Finished) -> None:
    base, last = weights(adapter_demo.out / "base"), merged(adapter_demo, f"series/step_{STEPS}")
    for name, line in merged(adapter_demo, "two-point").items():
        start = base[name.replace("lm_head", "model.embed_tokens")].double()
        torch.testing.assert_close(line, start + TOTAL / STEPS * (last[name] - start))


def test_the_story_says_that_it_is_an_adapter_its_size_and_how_to_push_it(
    adapter_demo: Finished,
) -> None:
    end = adapter_demo.out / END
    own = (end / "adapter_model.safetensors").stat().st_size / 1000
    full = (adapter_demo.out / "base/model.safetensors").stat().st_size / 1000
    assert f"of a LoRA adapter of rank {Lora().rank}: " in adapter_demo.text
    assert f"rank {Lora().rank}: {own:.0f} kB, the full model {full:.0f} kB" in adapter_demo.text
    assert f"relex-merge push {end} NAME/REPO" in adapter_demo.text


def test_an_interrupted_training_goes_on_and_ends_in_the_same_bits(
    adapter_demo: Finished, tmp_path: Path
) -> None:
    settings = replace(small_settings(lora=Lora()), rlvr=replace(RLVR, lr=RATE))
    begin(tmp_path / "out", settings, adapter_demo.out / "base")
    train_small(tmp_path / "out", settings, last=2)
    session = train_small(tmp_path / "out", settings, last=5)
    for step in range(1, 6):
        mine = adapter_weights(session.checkpoint(step))
        wanted = adapter_weights(adapter_demo.out / f"series/step_{step}")
        assert mine.keys() == wanted.keys()
        assert all(torch.equal(mine[name], wanted[name]) for name in mine), step


def test_a_demo_without_lora_is_not_continued_with_it(real_series: Series, tmp_path: Path) -> None:
    begin(tmp_path / "out", small_settings(), real_series.base)
    train_small(tmp_path / "out", small_settings(), last=1)
    with pytest.raises(RelexError, match=r"unfinished demo with other settings.*--force"):
        run_small(tmp_path / "out", lora=True)


def test_a_new_adapter_leaves_the_global_random_numbers_alone(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    train_small(tmp_path / "out", small_settings(lora=Lora(), pretraining=SHORT), last=1)
    assert torch.equal(state, torch.random.get_rng_state())


def test_lora_and_bad_are_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(RelexError, match="choose one of them"):
        run_small(tmp_path / "out", lora=True, bad=True)
    assert not (tmp_path / "out").exists()


def test_lora_and_bf16_are_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(RelexError, match=r"--bf16 is for whole models; leave out --lora"):
        run_small(tmp_path / "out", lora=True, bf16=True)
    assert not (tmp_path / "out").exists()


def test_trl_trains_the_adapter_too(real_series: Series, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    begin(tmp_path / "out", small_settings(lora=Lora(), trainer="trl"), real_series.base)
    result = run_small(tmp_path / "out", lora=True, trainer="trl", observe=6, steps=9)
    for step in range(1, 7):
        assert adapter_weights(tmp_path / f"out/series/checkpoint-{step}")
    assert adapter_weights(tmp_path / "out/relex/step-9")
    assert [c["step"] for c in result.report["checkpoints"]] == list(range(1, 7))
