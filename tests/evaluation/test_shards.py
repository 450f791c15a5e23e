"""Promises about the evaluation of a run over shards: base, last checkpoint and others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import relex_merge
from tests.support.models import write_model
from tests.support.sharded_runs import STEPS, ShardedRuns


def test_shards_are_measured_as_the_same_weights_in_safetensors(
    sharded_runs: ShardedRuns, tmp_path: Path
) -> None:
    from transformers import AutoConfig

    lines = [{"prompt": f"a{i}", "response": "b c d e"} for i in range(4)]
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps(line) + "\n" for line in lines))
    series = sharded_runs.series
    config = AutoConfig.from_pretrained(series.base)
    plain = [
        write_model(
            *(tmp_path / f"step_{step}", config, sharded_runs.state(step)),
            tokenizer=True,
            template="{{ messages }}",
        )
        for step in STEPS
    ]
    shards = [sharded_runs.checkpoint("fsdp2-2", step) for step in (0, *STEPS)]
    found = []
    for base, models in ((series.base, plain), (shards[0], shards[1:])):
        recipe: dict[str, Any] = {
            "merge_method": "relex",
            "base_model": str(base),
            "models": [{"model": str(model)} for model in models],
            "parameters": {"target_step": 20},
        }
        also = [str(models[0])]
        done = relex_merge.evaluate(recipe, text=text, scales=[1], also=also, quiet=True)
        function = done["function"]
        entries = [*function["candidates"], *function["others"]]
        found.append([entry["kl"] for entry in entries])
    assert len(found[0]) >= 3
    assert found[1] == pytest.approx(found[0], rel=1e-3)
