"""The T + 1 rows of a segment in a buffer, as the kernels take them, and checks of them."""

from __future__ import annotations

import torch

from relex_merge.engine.buffers import Buffer
from relex_merge.engine.kernels import Rows
from relex_merge.engine.plan import ModelPlan, TensorPlan
from relex_merge.engine.schedule import Segment


def spans_of(segment: Segment, span: int) -> list[slice]:
    """The segment's numbers, counted from its start, cut at multiples of the span."""
    n = segment.stop - segment.start
    return [slice(i, min(i + span, n)) for i in range(0, max(n, 1), span)]


def view(
    buffer: Buffer, segment: Segment, columns: slice, model: ModelPlan, device: torch.device
) -> Rows:
    """The base and the T checkpoints over ``columns``, on the device, in the dtypes that count.

    One tensor (T + 1, n) when all are stored alike, else one vector for each.
    """
    plan = model.tensors[segment.tensor]
    n = segment.stop - segment.start
    dtypes = [s.tensors[name].dtype for s, name in zip(model.sources, plan.stored, strict=True)]
    start, step = segment.position, segment.row_bytes
    if len(set(dtypes)) == 1:
        block = buffer.tensor[start : start + step * len(dtypes)].view(dtypes[0])
        return as_mergekit_would(_to(block.view(len(dtypes), n)[:, columns], device), plan)
    vectors = [
        buffer.tensor[start + t * step : start + t * step + n * dtype.itemsize].view(dtype)[columns]
        for t, dtype in enumerate(dtypes)
    ]
    return as_mergekit_would([_to(vector, device) for vector in vectors], plan)


def _to(rows: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type == "cpu":
        return rows
    if rows.is_contiguous():
        return rows.to(device, non_blocking=True)
    # Row by row: a strided copy would first be packed on the CPU.
    out = torch.empty(rows.shape, dtype=rows.dtype, device=device)
    for target, row in zip(out, rows, strict=True):
        target.copy_(row, non_blocking=True)
    return out


def as_mergekit_would(rows: Rows, plan: TensorPlan) -> Rows:
    """Inputs rounded to the recipe's ``dtype`` where that is narrower than what is stored."""
    if plan.parameters is None:
        return rows
    if all(torch.promote_types(row.dtype, plan.work) == plan.work for row in rows):
        return rows
    return [row.to(plan.work) for row in rows]


def unequal(rows: Rows, plan: TensorPlan, model: ModelPlan) -> str | None:
    """Mergekit's rule for integer buffers: they are copied, but only when all inputs agree."""
    for t, row in enumerate(rows):
        if row.dtype != rows[0].dtype or not torch.equal(row, rows[0]):
            return (
                f"{model.sources[t].label}: {plan.name} holds integers ({row.dtype}) that differ "
                "from the base's; integer or quantized weights cannot be extrapolated, dequantize "
                "the checkpoints first"
            )
    return None


def non_finite(rows: Rows, plan: TensorPlan, model: ModelPlan) -> str:
    """What to say of rows whose Gram matrix is not finite."""
    for t, row in enumerate(rows):
        if not bool(torch.isfinite(row).all()):
            return (
                f"{model.sources[t].label}: {plan.name} holds NaN or Inf; leave that checkpoint out"
            )
    return (
        f"{plan.name}: the squared distance from the base overflows; are these checkpoints of it?"
    )


def is_finite(numbers: torch.Tensor) -> bool:
    """Whether no number is NaN or Inf; cheaper than to look at each."""
    if not numbers.numel() or not numbers.is_floating_point():
        return True
    return all(bool(torch.isfinite(end)) for end in torch.aminmax(numbers))


def overflow(plan: TensorPlan) -> str:
    """What to say of a prediction that its dtype cannot hold."""
    return (
        f"{plan.name}: the prediction overflows {plan.out.dtype}; choose a nearer target_step, or "
        "out_dtype: float32"
    )
