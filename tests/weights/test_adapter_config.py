"""``adapter_config.json`` of any content: an error that names it, or an adapter."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

import relex_merge
from relex_merge.errors import RelexError
from relex_merge.weights.adapter_config import read_adapter_config
from tests.support.adapters import Adapters, make_adapters
from tests.support.json_mutations import mutations
from tests.support.refusal import refusal

CONFIGS = 60


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Adapters:
    return make_adapters(tmp_path_factory.mktemp("adapters"), steps=(1, 2))


@pytest.fixture
def adapter(series: Adapters, tmp_path: Path) -> Path:
    """A copy of an adapter that the test may spoil."""
    return Path(shutil.copytree(series.folders[1], tmp_path / "adapter"))


def test_a_configuration_of_any_content_is_refused_by_name_or_used(
    series: Adapters, adapter: Path
) -> None:
    recipe = series.recipe()
    recipe["models"][1] = {"model": str(adapter), "parameters": {"step": 2}}
    path = adapter / "adapter_config.json"
    counts: Counter[bool] = Counter()
    for content in mutations(json.loads(path.read_text()), CONFIGS):
        path.write_bytes(content)
        said = refusal(lambda: relex_merge.inspect(recipe, quiet=True))
        assert said is None or (str(adapter) in said and len(said) < 1000)
        counts[said is None] += 1
    assert counts[True] > CONFIGS / 20
    assert counts[False] > CONFIGS / 20


@pytest.mark.parametrize(
    "change",
    [
        {"peft_type": 3},
        {"r": 0},
        {"r": "4"},
        {"r": None},
        {"r": 10**400},
        {"lora_alpha": None},
        {"lora_alpha": float("nan")},
        {"lora_alpha": True},
        {"alpha_pattern": {"q_proj": "x"}},
        {"alpha_pattern": {"(": 4}},
        {"alpha_pattern": {"(?i)q": 4}},
        {"alpha_pattern": [1]},
        {"base_model_name_or_path": 3},
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_value_of_a_wrong_type(change: dict[str, object], adapter: Path) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    said = r"^the adapter: adapter_config\.json is not what PEFT"
    with pytest.raises(RelexError, match=said) as caught:
        read_adapter_config(adapter, "the adapter")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
