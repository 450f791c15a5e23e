"""The mergekit merge method ``relex``: one tensor group in, its extrapolation out.

The arithmetic is :mod:`relex_merge.trajectory.gram`, the loops are
:mod:`relex_merge.engine.kernels`; here is only what mergekit needs to know: parameters, the input
contract, and where the steps come from. Importing this module registers the method with mergekit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from mergekit.merge_methods import (
    BasePolicy,
    InputContract,
    OptionalTensorPolicy,
    PerNonBase,
    TensorEntry,
    TensorGroup,
    merge_method,
    register,
)

from relex_merge.engine import kernels
from relex_merge.errors import RelexError
from relex_merge.recipe.listed import is_observed, steps_in_order
from relex_merge.recipe.names import METHOD
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.predictors import AUTO
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics

PIECE_BYTES = 256 * 2**20  # of all rows together, when tensors in memory go through an accelerator

_records: list[dict[str, tuple[TensorStatistics, Parameters]]] = []


@contextmanager
def recording() -> Iterator[dict[str, tuple[TensorStatistics, Parameters]]]:
    """Collect, by tensor name, what the method saw and used while the context is open."""
    record: dict[str, tuple[TensorStatistics, Parameters]] = {}
    _records.append(record)
    try:
        yield record
    finally:
        _records.remove(record)


def first_non_finite(rows: Sequence[torch.Tensor], labels: Sequence[str]) -> str | None:
    """Return the label of the first row that holds NaN or Inf, if any does."""
    for row, label in zip(rows, labels, strict=True):
        if not all(
            bool(torch.isfinite(row[i : i + 2**22]).all()) for i in range(0, len(row), 2**22)
        ):
            return label
    return None


def _pieces(rows: list[torch.Tensor]) -> Iterator[tuple[slice, list[torch.Tensor]]]:
    """Yield the rows as they lie; on a worker of mergekit's multi-GPU executor, piece by piece."""
    device = torch.get_default_device()
    n = rows[0].numel()
    if device == rows[0].device or rows[0].device.type != "cpu":
        yield slice(0, n), rows
        return
    length = max(1, PIECE_BYTES // sum(row.element_size() for row in rows))
    for start in range(0, max(n, 1), length):
        columns = slice(start, min(start + length, n))
        yield columns, [row[columns].to(device) for row in rows]


@merge_method(  # type: ignore[untyped-decorator]  # mergekit ships no types
    name=METHOD,
    pretty_name="RELEX",
    reference_url="https://arxiv.org/abs/2605.21468",
    contract=InputContract(base=BasePolicy.REQUIRED, min_inputs=3, min_non_base=2),
    optional_tensor_policy=OptionalTensorPolicy.BASE_OR_SKIP,
    # Checkpoints stay where they were mapped: the executor would move all T of them at once.
    uses_accelerator=False,
)
def relex(  # noqa: PLR0913, PLR0917  # mergekit reads the recipe's parameters off the signature
    group: TensorGroup,
    target_step: float | Literal["auto"],
    rank: int = 1,
    degree: int = 1,
    window: int | None = None,
    mode: str = "extrapolate",
    predictor: str = "linear",
    scope: str = "model",
    anchor: str = "line",
    scale: float = 1.0,
    step: PerNonBase[float | None] = None,  # mergekit broadcasts it
    role: PerNonBase[str] = "observed",
) -> torch.Tensor:
    """Return θ₀ + Σ_t w_t δ_t of one tensor, in the dtype of the group.

    Torch records no gradients of it.

    Args:
        group: the tensor in the base and in every checkpoint.
        target_step: where to extrapolate to.
        rank: how many directions of the trajectory are kept.
        degree: of the polynomial that continues each coefficient.
        window: how many of the last checkpoints enter the fit; None: all.
        mode: "extrapolate" or "reconstruct".
        predictor: how each coefficient goes on.
        scope: of the choice, for ``predictor: auto``.
        anchor: "line", "last" or "average"; what the displacement starts from.
        scale: λ, by which the displacement from the last observed step is multiplied.
        step: of each checkpoint; None reads it from the checkpoint's id.
        role: of each checkpoint; those with "holdout" are left out.

    Raises:
        RelexError: the parameters do not fit the series, or a checkpoint holds NaN or Inf.
    """
    assert group.base is not None  # by the input contract
    name = group.metadata.name or "the tensor"
    entries: list[TensorEntry] = [e for e in group.non_base if is_observed(role[e.id], str(e.id))]
    labels = [str(entry.id) for entry in entries]
    ordered = steps_in_order(labels, step.values_for(entries))
    if target_step == "auto" or (predictor == AUTO and scope != "tensor"):
        raise RelexError(
            "target_step: auto and predictor: auto look at the whole model before a weight is "
            "written, and mergekit's own path sees one tensor at a time; run it with relex-merge "
            "run, or give a target_step and scope: tensor"
        )
    asked = Parameters(
        target_step, rank, degree, window, mode, predictor, scope, anchor=anchor, scale=scale
    )
    steps = np.array([s for s, _ in ordered], dtype=np.float64)
    asked.check(steps)

    chosen = [group.base, *(entries[position] for _, position in ordered)]
    rows = [entry.tensor.detach().reshape(-1) for entry in chosen]
    dtype = kernels.compute_dtype(rows, rows[0].numel())
    result = torch.empty_like(rows[0])
    with torch.no_grad(), kernels.ieee_float32():
        parts = [kernels.accumulate(piece, dtype) for _, piece in _pieces(rows)]
        statistics = sum(parts[1:], parts[0])
        if not np.isfinite(statistics.gram).all():
            label = first_non_finite(rows, [str(entry.id) for entry in chosen])
            raise RelexError(f"{label}: {name} holds NaN or Inf; leave that checkpoint out")
        if asked.is_open:
            from relex_merge.trajectory.backtests.automatic import resolve

            found = SeriesStatistics(steps, {name: statistics})
            asked = resolve({name: asked}, found).parameters[name]
        w = torch.from_numpy(asked.weights(statistics.gram, steps))[None]
        for columns, piece in _pieces(rows):
            out = torch.empty_like(piece[0])
            kernels.combine(piece, w, [out], dtype)
            result[columns] = out
    for record in _records:
        record[name] = (statistics, asked)
    return result.reshape(group.base.tensor.shape)


register(relex)
