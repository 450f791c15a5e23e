"""``config.json`` of any content: an error that names it, or a run."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import relex_merge
from relex_merge.engine.architecture import MOST_LAYERS, read_config
from relex_merge.errors import RelexError
from tests.support.json_mutations import mutations
from tests.support.models import Series, make_series
from tests.support.refusal import refusal

CONFIGS = 60
SLOWEST = 2.0  # seconds of processor time for one file


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return make_series(tmp_path_factory.mktemp("two"), steps=(1, 2))


@pytest.fixture
def base(two: Series, tmp_path: Path) -> Path:
    """A copy of the base that the test may spoil."""
    return Path(shutil.copytree(two.base, tmp_path / "base"))


def change(base: Path, **values: Any) -> None:
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_configuration_of_any_content_is_refused_by_name_or_used(two: Series, base: Path) -> None:
    recipe = {**two.recipe(), "base_model": str(base)}
    good = json.loads((base / "config.json").read_text())
    assert refusal(lambda: relex_merge.inspect(recipe, quiet=True)) is None
    counts: Counter[bool] = Counter()
    for content in mutations(good, CONFIGS):
        (base / "config.json").write_bytes(content)
        start = time.process_time()
        said = refusal(lambda: relex_merge.inspect(recipe, quiet=True))
        assert time.process_time() - start < SLOWEST
        assert said is None or (str(base) in said and len(said) < 1000)
        counts[said is None] += 1
    assert counts[True] > CONFIGS / 20
    assert counts[False] > CONFIGS / 4


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"architectures": None}, "must name one entry under architectures"),
        ({"architectures": []}, "must name one entry under architectures"),
        ({"architectures": [7]}, r"config\.json"),
        ({"architectures": "Qwen2ForCausalLM"}, "must name one entry under architectures"),
        ({"architectures": 3}, r"config\.json"),
        ({"model_type": ["qwen2"]}, r"config\.json"),
        ({"model_type": "nonsense"}, r"config\.json"),
        ({"model_type": "\x00"}, r"config\.json"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers"),
        ({"num_hidden_layers": 2**31}, "which no model has"),
        ({"num_hidden_layers": 10**400}, "which no model has"),
        ({"text_config": {"num_hidden_layers": MOST_LAYERS + 1}}, "which no model has"),
        ({"dtype": "auto"}, r"config\.json"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_value_of_a_wrong_type(values: dict[str, Any], said: str, base: Path) -> None:
    change(base, **values)
    with pytest.raises(RelexError, match=said) as caught:
        read_config(base, "the model", trust_remote_code=False)
    assert str(caught.value).startswith("the model")
    assert str(caught.value).isprintable()


def test_a_model_that_cannot_be_built_is_told_when_an_adapter_is_made_of_it(
    two: Series, base: Path, tmp_path: Path
) -> None:
    change(base, hidden_act="nonsense")
    recipe = {**two.recipe(), "base_model": str(base)}
    with pytest.raises(RelexError, match=r"config\.json.*nonsense"):
        relex_merge.extrapolate(recipe, tmp_path / "out", form="adapter", quiet=True)
    assert not (tmp_path / "out").exists()
