"""Gram matrices of a whole real run on disk, later checkpoints included, for calibrations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from relex_merge.checkpoints.files import GRAM
from relex_merge.checkpoints.steps import step_of
from relex_merge.engine import kernels
from relex_merge.trajectory.statistics import SeriesStatistics


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    parts = [load_file(file) for file in sorted(folder.glob("*.safetensors"))]
    return {name: tensor for part in parts for name, tensor in part.items()}


def load(path: Path) -> tuple[SeriesStatistics, str]:
    """(statistics, dtype) of every checkpoint at ``path``.

    path: a ``relex_gram.safetensors``, a folder that holds one, or a folder with ``base`` and one
    model folder per checkpoint (``step_50``) that fits into memory. A saved G does not tell the
    dtype; "float32" is assumed.
    """
    saved = path / GRAM if path.is_dir() else path
    if saved.is_file():
        return SeriesStatistics.load(saved), "float32"
    found = {
        step: folder
        for folder in path.iterdir()
        if folder.name != "base" and (step := step_of(str(folder))) is not None
    }
    steps = sorted(found)
    models = [_weights(path / "base"), *(_weights(found[step]) for step in steps)]
    tensors = {
        name: kernels.accumulate([m[name].flatten() for m in models], torch.float64)
        for name in models[0]
    }
    dtype = str(next(iter(models[-1].values())).dtype).removeprefix("torch.")
    return SeriesStatistics(np.asarray(steps, dtype=np.float64), tensors), dtype
