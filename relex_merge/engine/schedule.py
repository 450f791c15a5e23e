"""Cutting a plan into pieces that fit the memory budget.

A piece is what is in one buffer at a time: whole small tensors, or a part of a large one, with all
T + 1 rows. A tensor whose pieces can all be in memory together is read once; a larger one twice,
once for G and once for Σ w_t δ_t. Where tensors are cut depends on T alone (a *span*), so that
budget and piece size never change the order of a sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from relex_merge.engine.plan import ModelPlan, TensorPlan
from relex_merge.errors import RelexError

ALIGNMENT = 64  # bytes; every segment starts on a cache line


@dataclass(frozen=True)
class Segment:
    """Numbers [start, stop) of a tensor, all rows, at byte ``position`` of the piece's buffer.

    The rows lie behind one another, ``row_bytes`` apart.
    """

    tensor: int
    start: int
    stop: int
    position: int
    row_bytes: int


@dataclass(frozen=True)
class Piece:
    """What one buffer holds. gram, combine: which of the two loops run over it."""

    segments: tuple[Segment, ...]
    gram: bool
    combine: bool


@dataclass(frozen=True)
class Schedule:
    """Pieces in the order of reading.

    buffers: how many of ``buffer_bytes`` a run needs; read_bytes: of all files together; twice: the
    tensors that are read twice; gram: whether G is formed or known from an earlier pass; combine:
    whether there is an output at all.
    """

    pieces: tuple[Piece, ...]
    buffer_bytes: int
    buffers: int
    read_bytes: int
    twice: tuple[int, ...]
    gram: bool
    combine: bool


def make_schedule(
    plan: ModelPlan,
    tensors: Sequence[int],
    budget: int,
    *,
    span: int,
    piece_bytes: int,
    ahead: int,
    gram: bool = True,
    combine: bool = True,
) -> Schedule:
    """Cut ``tensors`` (indices into the plan) for a budget in bytes.

    span: numbers of a tensor that are never cut; piece_bytes: the size to aim at; ahead: buffers to
    read ahead of the arithmetic; gram, combine: which loops are wanted. Raises RelexError when
    the budget does not hold two spans.
    """
    rows = plan.T + 1
    size = _buffer_bytes(plan, tensors, budget, span, piece_bytes, ahead)
    limit = budget // size
    pieces: list[Piece] = []
    twice: list[int] = []
    most = 1
    open_piece: list[Segment] = []

    def close(segments: list[Segment]) -> list[Piece]:
        return [Piece(tuple(segments), gram, combine)] if segments else []

    for index in tensors:
        segments = list(_cut(plan, index, span, size))
        if len(segments) == 1:
            segment = segments[0]
            end = _end(open_piece, rows)
            if end + rows * segment.row_bytes > size:
                pieces += close(open_piece)
                open_piece, end = [], 0
            open_piece.append(Segment(index, segment.start, segment.stop, end, segment.row_bytes))
            continue
        pieces += close(open_piece)
        open_piece = []
        both = gram and combine
        if not both or len(segments) <= limit:
            pieces += [Piece((s,), gram, combine) for s in segments]
            most = max(most, len(segments) if both else 1)
        else:
            twice.append(index)
            pieces += [Piece((s,), gram=True, combine=False) for s in segments]
            pieces += [Piece((s,), gram=False, combine=True) for s in segments]
    pieces += close(open_piece)
    read = sum(plan.stored_bytes(i) * (2 if i in set(twice) else 1) for i in tensors)
    return Schedule(
        tuple(pieces), size, min(limit, most + ahead), read, tuple(twice), gram, combine
    )


def _buffer_bytes(
    plan: ModelPlan, tensors: Sequence[int], budget: int, span: int, piece_bytes: int, ahead: int
) -> int:
    """Return the bytes of one buffer: a span at least, ``piece_bytes`` at most.

    Where the budget allows, they are so few that enough buffers fit to read ahead.
    """
    rows = plan.T + 1
    widest = max((plan.row_bytes(plan.tensors[i]) for i in tensors), default=1)
    itemsize = max((_itemsize(plan, plan.tensors[i]) for i in tensors), default=1)
    least = rows * min(span * itemsize, widest) + ALIGNMENT
    if 2 * least > budget:
        raise RelexError(
            f"a memory budget of {budget:,} bytes is too small: two chunks of {plan.T} checkpoints "
            f"take {2 * least:,} bytes; raise --memory-budget"
        )
    whole = max((rows * plan.row_bytes(plan.tensors[i]) for i in tensors), default=1) + ALIGNMENT
    return max(least, min(piece_bytes, budget // min(ahead + 2, budget // least), whole * 4))


def _itemsize(plan: ModelPlan, tensor: TensorPlan) -> int:
    return plan.row_bytes(tensor) // max(tensor.out.numel, 1)


def _cut(plan: ModelPlan, index: int, span: int, size: int) -> Iterator[Segment]:
    tensor = plan.tensors[index]
    numel = tensor.out.numel
    itemsize = max(_itemsize(plan, tensor), 1)
    per_row = (size - ALIGNMENT) // (plan.T + 1) // itemsize
    length = max(per_row // span * span, span) if numel > per_row else max(numel, 1)
    for start in range(0, max(numel, 1), length):
        stop = min(start + length, numel)
        yield Segment(index, start, stop, 0, (stop - start) * itemsize)


def _end(segments: Sequence[Segment], rows: int) -> int:
    if not segments:
        return 0
    last = segments[-1]
    end = last.position + rows * last.row_bytes
    return -(-end // ALIGNMENT) * ALIGNMENT
