"""``--lora``: the policy is a PEFT adapter on the base, which itself stays as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from relex_merge.checkpoints.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, REPORT
from relex_merge.demo.model import load_model
from relex_merge.demo.session import Session
from relex_merge.demo.settings import Lora
from relex_merge.errors import disk_errors
from relex_merge.report.contents import read_report


def load_policy(session: Session, folder: Path, *, trainable: bool = False) -> Any:
    """Load a model in float32: a whole one, or the session's base under an adapter.

    Args:
        session: the demo.
        folder: where the model or adapter lies.
        trainable: for training to go on from there; before the first step an adapter is new then.
    """
    from peft import PeftModel

    lora = session.settings.lora
    if lora is None or not (trainable or (folder / ADAPTER_CONFIG).is_file()):
        return load_model(folder)
    base = load_model(session.base)
    if folder == session.base:
        return new_adapter(base, lora, session.settings.stream("adapter"))
    return PeftModel.from_pretrained(base, folder, is_trainable=trainable).eval()


def new_adapter(base: Any, lora: Lora, seed: int) -> Any:
    """Put an adapter on every linear layer of ``base``: A drawn by PEFT, B = 0.

    The global random state is left as it was.

    Args:
        base: the model.
        lora: rank and scaling.
        seed: of A.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM", r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(base, config).eval()


def scale_adapter(folder: Path, factor: float, out: Path) -> Path:
    """Write an adapter with δ = (α/r) B A multiplied by a factor, which goes to α.

    Args:
        folder: of the adapter.
        factor: what δ is multiplied by.
        out: folder of the new adapter, which replaces what lies there.

    Returns:
        ``out``.

    Raises:
        RelexError: it cannot be written.
    """
    with disk_errors(out):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(folder, out)
        config = json.loads((out / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        config["lora_alpha"] *= factor
        (out / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return out


def describe(adapter: Path, base: Path) -> str:
    """Say what lies in ``adapter``, an extrapolated one on ``base``, and how to publish it."""
    report = read_report(adapter / REPORT)["adapter"]
    own, full = (
        file.stat().st_size / 1000
        for file in (adapter / ADAPTER_WEIGHTS[0], base / "model.safetensors")
    )
    return (
        f"RELEX's model is a LoRA adapter of rank {report['rank']}: {own:.0f} kB, the full model "
        f"{full:.0f} kB; it holds {1 - report['discarded']:.2%} of the energy of the update. "
        f"PeftModel loads it on {base}. To publish it:\n"
        f"  relex-merge push {adapter} NAME/REPO"
    )
