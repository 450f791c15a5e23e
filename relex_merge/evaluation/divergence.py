"""How far a model's next-token distributions are from the last observed checkpoint's.

On the tokens of responses y to prompts x, with θ_T the last observed checkpoint and q another
model, the divergence is the mean over all response tokens t of

    KL(p_θT(· | x, y_<t) ‖ q(· | x, y_<t)) = Σ_v p(v) (log p(v) − log q(v))        nats a token

over the full vocabulary. Where the responses were sampled from θ_T it estimates the divergence a
token between the two models as text generators, Σ over tokens being KL of whole responses by the
chain rule (Cover and Thomas, *Elements of Information Theory*, theorem 2.5.3).

Arithmetic: log p and log q are float32 ``log_softmax``; the sum is taken in the equal form

    Σ_v [ p(v) (e^{d(v)} − 1) − p(v) d(v) ],        d(v) = log q(v) − log p(v),

as Σ_v p e^d = Σ_v q = 1 = Σ_v p. No term of it is negative, and an error ε in a normalisation
enters as ε² instead of ε, so that divergences of 1e-6 nats are still right. Sums are float64.
"""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relex_merge.errors import RelexError
from relex_merge.evaluation.batches import in_batches
from relex_merge.evaluation.estimates import ClusteredSums, by_cluster
from relex_merge.evaluation.tokens import Item
from relex_merge.formatting import size

IN_MEMORY = 4 * 10**9  # bytes of log-probabilities; what is more goes to a scratch file
LOGITS = 2**30  # bytes that the logits of one forward pass may take
# float32 numbers of a chunk of log-probabilities. Several chunks are alive at a time; on a CPU they
# should stay in its cache (1 MB each: three times as fast as 16 MB), on a GPU fill it.
CPU_CHUNK = 2**18
GPU_CHUNK = 2**24
SAFE = 60.0  # e^d is finite in float32, and where p = 0 in float32 q is below e^-43


@dataclass(frozen=True)
class Reference:
    """What θ_T says at every response position.

    items: prompts and responses. logprobs: float32 (N, V), log p of the N response tokens of all
    items one after the other. starts: where each item's rows begin. name: of the model.
    batch_size: sequences in a forward pass, the reference's and all others'.
    """

    items: tuple[Item, ...]
    logprobs: torch.Tensor
    starts: tuple[int, ...]
    name: str
    batch_size: int

    @property
    def tokens(self) -> int:
        """The number of response tokens that divergences are means over."""
        return len(self.logprobs)


@contextmanager
def reference(
    model: Any,
    items: Sequence[Item],
    *,
    name: str,
    batch_size: int = 16,
    in_memory: int = IN_MEMORY,
    scratch: Path | None = None,
) -> Iterator[Reference]:
    """Run the last observed checkpoint over the items and keep its log-probabilities.

    Args:
        model: θ_T, a transformers causal language model in evaluation mode.
        items: each with at least one response token.
        name: what messages call the model.
        batch_size: the most sequences in a forward pass; fewer where their logits would take more
            than LOGITS bytes, and halved where memory runs out.
        in_memory: bytes up to which the log-probabilities stay in memory.
        scratch: where a file of 4 N V bytes goes that is larger; the system's place for temporary
            files when None. The file is gone in the end.

    Yields:
        The reference for :func:`divergence`.

    Raises:
        RelexError: logits are not finite, a single sequence does not fit into memory, or there is
            no room for the scratch file.
    """
    lengths = [len(item.response) for item in items]
    starts = [0, *np.cumsum(lengths).tolist()]
    vocabulary = _vocabulary(model, items[0], name)
    widest = max(len(item.prompt) + len(item.response) for item in items)
    batch_size = max(min(batch_size, LOGITS // (4 * vocabulary * widest)), 1)
    with _rows(starts[-1], vocabulary, in_memory, scratch) as logprobs:

        def keep(batch: Sequence[int]) -> Sequence[None]:
            for index, rows in zip(batch, _response_logits(model, items, batch), strict=True):
                _check_finite(rows, name, items[index])
                for part in _chunks(rows):
                    into = logprobs[starts[index] + part.start : starts[index] + part.stop]
                    into.copy_(torch.log_softmax(rows[part].float(), -1))
            return [None] * len(batch)

        in_batches(_by_length(items), batch_size, keep, name=name)
        yield Reference(tuple(items), logprobs, tuple(starts[:-1]), name, batch_size)


def divergence(known: Reference, model: Any, *, name: str) -> ClusteredSums:
    """Measure KL(p_θT ‖ q) of a model, in nats, at every response token.

    Args:
        known: what θ_T says.
        model: q, a transformers causal language model in evaluation mode, with θ_T's vocabulary.
        name: what messages call the model.

    Returns:
        Sums over the tokens of each prompt: ``.mean()`` is the divergence in nats a token with its
        standard error over prompts, and two of them make a functional backtest's skill
        (:func:`relex_merge.evaluation.estimates.skill`).

    Raises:
        RelexError: logits are not finite, the vocabularies differ, or a single sequence does not
            fit into memory.
    """
    items, expected = known.items, known.logprobs.shape[1]

    def compare(batch: Sequence[int]) -> Sequence[float]:
        sums = []
        for index, rows in zip(batch, _response_logits(model, items, batch), strict=True):
            if rows.shape[1] != expected:
                raise RelexError(
                    f"{name} has a vocabulary of {rows.shape[1]} tokens and {known.name} one of "
                    f"{expected}; only models of one vocabulary can be compared"
                )
            _check_finite(rows, name, items[index])
            start, total = known.starts[index], 0.0
            for part in _chunks(rows):
                log_p = known.logprobs[start + part.start : start + part.stop].to(rows.device)
                total += _kl(log_p, torch.log_softmax(rows[part].float(), -1))
            sums.append(total)
        return sums

    order = _by_length(items)
    sums = np.zeros(len(items))
    sums[order] = in_batches(order, known.batch_size, compare, name=name)
    counts = np.array([len(item.response) for item in items], dtype=np.float64)
    return by_cluster(sums, counts, np.array([item.cluster for item in items]))


def _kl(log_p: torch.Tensor, log_q: torch.Tensor) -> float:
    """Return Σ KL in nats over the rows of float32 (n, V) log-probabilities (module text)."""
    d = log_q - log_p
    p = log_p.exp()
    if float(d.max()) < SAFE:
        terms = torch.expm1(d).sub_(d).mul_(p)
    else:
        terms = log_q.exp().sub_(p).sub_(p * d)  # the same without e^d; coarser where d is small
    return float(terms.clamp_min_(0).sum(dtype=torch.float64))


def _response_logits(model: Any, items: Sequence[Item], batch: Sequence[int]) -> list[torch.Tensor]:
    """Return for each item of the batch the logits (n, V) that predict its n response tokens.

    Sequences are padded on the right, where a causal model does not look. Only the span of
    positions that predict some response is computed, where the model can be told so.
    """
    sequences = [items[index].prompt + items[index].response for index in batch]
    width = max(map(len, sequences))
    ids = torch.zeros((len(batch), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    first = min(len(items[index].prompt) for index in batch) - 1
    keep: dict[str, Any] = {}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        keep["logits_to_keep"] = torch.arange(first, width - 1, device=model.device)
    with torch.inference_mode():
        logits = model(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            use_cache=False,
            **keep,
        ).logits
    responses = []
    for row, index in enumerate(batch):
        start = len(items[index].prompt) - 1 - (first if keep else 0)
        responses.append(logits[row, start : start + len(items[index].response)])
    return responses


def _vocabulary(model: Any, item: Item, name: str) -> int:
    """Return the width of the model's logits, from a forward pass of one token."""
    short = Item(item.prompt[:1], item.prompt[:1], item.cluster, item.place)
    (logits,) = in_batches([0], 1, lambda batch: _response_logits(model, [short], batch), name=name)
    return logits.shape[-1]


def _check_finite(rows: torch.Tensor, name: str, item: Item) -> None:
    if not bool(torch.isfinite(rows).all()):
        raise RelexError(
            f"{name} gives NaN or infinite logits on {item.place}; its weights are broken, or "
            "float16 is too narrow for it"
        )


def _chunks(rows: torch.Tensor) -> Iterator[slice]:
    """Yield slices of the rows of (n, V) that hold about one chunk each."""
    numbers = CPU_CHUNK if rows.device.type == "cpu" else GPU_CHUNK
    step = max(numbers // rows.shape[1], 1)
    for start in range(0, len(rows), step):
        yield slice(start, min(start + step, len(rows)))


def _by_length(items: Sequence[Item]) -> list[int]:
    """Return the items' numbers so that neighbours need little padding, the longest first.

    The longest come first so that memory runs out at once or not at all.
    """
    lengths = [(len(item.prompt), len(item.response)) for item in items]
    return sorted(range(len(items)), key=lambda i: (-sum(lengths[i]), lengths[i]))


@contextmanager
def _rows(count: int, width: int, in_memory: int, scratch: Path | None) -> Iterator[torch.Tensor]:
    """Yield float32 (count, width), in memory or in a file that is gone in the end."""
    nbytes = 4 * count * width
    if nbytes <= in_memory:
        yield torch.empty((count, width))
        return
    place = scratch or Path(tempfile.gettempdir())
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile(dir=place))
            _reserve(file.fileno(), nbytes)
        except OSError as error:
            raise RelexError(
                f"no room for {size(nbytes)} of log-probabilities in {place}: "
                f"{error.strerror or error}; use fewer or shorter responses, or a folder on a "
                "larger disk (environment variable TMPDIR)"
            ) from error
        yield torch.from_numpy(np.memmap(file, np.float32, "r+", shape=(count, width)))


def _reserve(file: int, nbytes: int) -> None:
    """Take the room now: a mapped file that outgrows its disk would kill the process later."""
    if sys.platform == "linux":
        os.posix_fallocate(file, 0, nbytes)
    else:
        os.truncate(file, nbytes)
