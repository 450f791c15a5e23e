"""What an evaluation will read, hold, compute and write, told before a byte of weights is read."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from relex_merge.checkpoints.locate import Snapshot, locate
from relex_merge.engine.architecture import read_config
from relex_merge.engine.engine import schedule_for
from relex_merge.engine.plan import NeedsMergekit
from relex_merge.engine.resources import available
from relex_merge.engine.spill import scratch_bytes
from relex_merge.errors import RelexError
from relex_merge.evaluation.divergence import IN_MEMORY, LOGITS
from relex_merge.evaluation.evaluate import loaded_tasks
from relex_merge.evaluation.from_recipe import grid, own_candidate
from relex_merge.evaluation.series_models import cuts_at, plan_deltas, why_no_cut
from relex_merge.evaluation.task_scores import most_answers
from relex_merge.evaluation.text_figures import Prompts, read_items
from relex_merge.evaluation.tokens import first_tokenizer
from relex_merge.formatting import size
from relex_merge.pipeline.automatic import is_open
from relex_merge.pipeline.prepare import prepare, where_read
from relex_merge.recipe.listed import listed_checkpoints
from relex_merge.recipe.variant import Variant

if TYPE_CHECKING:
    from relex_merge.evaluation.outputs import Output
    from relex_merge.evaluation.request import EvaluationRequest
    from relex_merge.evaluation.series_models import Cut
    from relex_merge.pipeline.prepare import Prepared
    from relex_merge.recipe.load import Recipe
    from relex_merge.report.candidates import Candidate

WIDTH = 80
LIVE = 4  # bytes of a number of the model in memory: float32
PUT = 12  # bytes of a number while a tensor is composed: a sum, a delta, what is stored


@dataclass(frozen=True)
class _Work:
    """What is counted.

    candidates, on_the_way: how many models. composed: whether the candidates are made from the
    series; else they lie on the disk. base: whether there is one. cuts: functional backtests.
    numbers: of a model; largest: of its largest tensor. written: bytes of a model in files.
    prompts: the text. vocabulary: tokens. read: which bytes of checkpoints are read, in words.
    scratch, buffers: bytes on the disk and in memory. notes: sentences on what cannot be measured.
    """

    candidates: int
    on_the_way: int
    composed: bool
    base: bool
    cuts: int
    numbers: int
    largest: int
    written: int
    prompts: Prompts
    vocabulary: int
    read: str
    scratch: int
    buffers: int
    notes: Sequence[str]


def forecast_recipe(recipe: Recipe, request: EvaluationRequest) -> str:
    """Return a table of what an evaluation of a recipe costs.

    Args:
        recipe: of this package's method, with plain series.
        request: what is asked for.

    Raises:
        RelexError: as the evaluation would before it reads weights.
        NeedsMergekit: only mergekit's own path can run the recipe.
    """
    prepared = prepare(recipe, [Variant()], request.merge, request.streams)
    own = own_candidate(prepared)
    notes = []
    if is_open(prepared.plan):
        steps = prepared.plan.steps
        own = replace(own, target_step=max(own.target_step, 2 * float(steps[-1])))
        notes.append(
            "`auto` is chosen first, from one more reading of all checkpoints; its target is "
            f"taken for step {own.target_step:g} here."
        )
    candidates = grid(own, request)
    work = _of_series(prepared, candidates, cuts_for(prepared, candidates), candidates, request)
    return _told(replace(work, notes=[*notes, *work.notes]), request)


def cuts_for(prepared: Prepared, candidates: Sequence[Candidate]) -> list[Cut]:
    """Return the functional backtests that candidates ask for."""
    return cuts_at(prepared.plan.steps, *(c.target_step for c in candidates))


def forecast_outputs(outputs: Sequence[Output], request: EvaluationRequest) -> str:
    """Return a table of what an evaluation of finished outputs costs.

    Args:
        outputs: of one series.
        request: what is asked for.

    Raises:
        RelexError: as the evaluation would before it reads weights.
    """
    candidates = [output.candidate for output in outputs]
    try:
        prepared = prepare(outputs[0].recipe, [Variant()], request.merge, request.streams)
    except (RelexError, NeedsMergekit) as reason:
        work = _of_last(outputs, request, reason)
    else:
        work = _of_series(prepared, candidates, cuts_for(prepared, candidates), [], request)
    return _told(work, request)


def _of_series(
    prepared: Prepared,
    candidates: Sequence[Candidate],
    cuts: Sequence[Cut],
    composed: Sequence[Candidate],
    request: EvaluationRequest,
) -> _Work:
    """Count the work on a series; ``composed`` are the candidates that are made from it."""
    plan = prepared.plan
    resources = available(request.merge, request.memory_budget)
    deltas = plan_deltas(plan, composed, cuts)
    once, scratch, buffers = 0, 0, 0
    if deltas.plan.targets:
        pieces = schedule_for(deltas.plan, range(len(deltas.plan.tensors)), resources)
        spilled = scratch_bytes(deltas.plan, pieces)
        whole = sum(deltas.plan.stored_bytes(i) for i in range(len(deltas.plan.tensors)))
        once = whole if spilled else pieces.read_bytes
        scratch = deltas.nbytes + spilled
        buffers = pieces.buffers * pieces.buffer_bytes
    last, base = prepared.snapshots[len(plan.steps)], prepared.snapshots[0]
    downloaded = [s.reference for s in (base, last) if s.streamed]
    read = f"{size(once)} of checkpoints from {where_read(prepared.snapshots)}, once"
    if downloaded:
        read += f"; {' and '.join(downloaded)} downloaded to the cache"
    on_the_way = 0 if request.every is None else int(sum(plan.steps[:-1] % request.every == 0))
    targets = dict.fromkeys(c.target_step for c in candidates)
    missing = [why_no_cut(plan.steps, target) for target in targets]
    return _Work(
        len(candidates),
        on_the_way,
        composed=bool(composed),
        base=True,
        cuts=len(cuts),
        numbers=sum(t.out.numel for t in plan.tensors),
        largest=max(t.out.numel for t in plan.tensors),
        written=sum(t.out.nbytes for t in plan.tensors),
        prompts=read_items(request, prepared.config, first_tokenizer([last, base])),
        vocabulary=_vocabulary(prepared.config),
        read=read,
        scratch=scratch,
        buffers=buffers,
        notes=[note for note in missing if note],
    )


def _of_last(outputs: Sequence[Output], request: EvaluationRequest, reason: Exception) -> _Work:
    """Count the work where nothing but the last observed checkpoint can be had."""
    recipe = outputs[0].recipe
    reference = [c.reference for c in listed_checkpoints(recipe) if c.observed][-1]
    (last,) = locate([reference], cache_dir=request.merge.transformers_cache)
    trusted = request.merge.trust_remote_code
    config = read_config(last.folder, reference, trust_remote_code=trusted)
    outs = [Snapshot(str(output.folder), None, output.folder) for output in outputs]
    numbers = sum(tensor["numel"] for tensor in outputs[0].report["tensors"].values())
    return _Work(
        len(outputs),
        0,
        composed=False,
        base=False,
        cuts=0,
        numbers=numbers,
        largest=0,
        written=LIVE * numbers,
        prompts=read_items(request, config, first_tokenizer([last, *outs])),
        vocabulary=_vocabulary(config),
        read="the outputs and the last observed checkpoint, once",
        scratch=0,
        buffers=0,
        notes=[f"No functional backtest: the series cannot be read ({reason})."],
    )


def _vocabulary(config: Any) -> int:
    return int(config.get_text_config().vocab_size)


# What is told


def _told(work: _Work, request: EvaluationRequest) -> str:
    """Return the table."""
    items = work.prompts
    others = len(request.also) + work.on_the_way
    models = 1 + work.base + work.candidates + others + 2 * work.cuts
    sequences = len(items.items) * (items.sampling.samples if items.sampling else 1)
    context = sum(len(item.prompt) for item in items.items)
    context *= items.sampling.samples if items.sampling else 1
    widest = max(len(item.prompt) + len(item.response) for item in items.items)
    if items.sampling:
        widest += items.sampling.max_new_tokens
    batch = max(min(request.batch_size, LOGITS // (4 * work.vocabulary * widest)), 1)
    batches = math.ceil(sequences / batch)
    logprobs = 4 * items.most_tokens * work.vocabulary
    in_memory = logprobs if logprobs <= IN_MEMORY else 0
    scratch = work.scratch + (logprobs - in_memory)
    logits = 2 * 4 * work.vocabulary * widest * min(batch, sequences)
    model = LIVE * work.numbers
    beside = model if request.also or not work.composed else 0  # loaded beside the one in memory
    putting = PUT * work.largest
    peak = max(model + work.buffers, model + beside + in_memory + max(logits, putting))
    rows = {
        "models": f"{models}: {_models(work, others)}",
        "models written": _written(work, request),
        "text": f"{sequences} sequences: {_text(items, context)}",
        "forward passes": f"{models * batches:,} of at most {batch} sequences"
        + (_sampled(items, models, request) if items.sampling else ""),
        "tokens": _most(items, models * (context + items.most_tokens)),
        "to read": work.read,
        "peak memory": f"about {size(peak)} besides Python and torch, {size(model)} of it the "
        "model in float32",
        "scratch disk": size(scratch),
        **_tasks(work, others, request),
    }
    return "\n".join([_table(rows), *(textwrap.fill(note, WIDTH) for note in work.notes)])


def _table(rows: Mapping[str, str]) -> str:
    """Return a line for each name and its text, wrapped under itself."""
    indent = max(map(len, rows)) + 2
    return "\n".join(
        textwrap.fill(
            text, WIDTH, initial_indent=f"{name:<{indent}}", subsequent_indent=" " * indent
        )
        for name, text in rows.items()
    )


def _models(work: _Work, others: int) -> str:
    counted = [
        "the last observed checkpoint",
        *(["the base"] if work.base else []),
        f"{work.candidates} candidate{'s' * (work.candidates != 1)}",
    ]
    if others:
        counted.append(f"{others} more")
    if work.cuts:
        tests = f"{work.cuts} functional backtest{'s' * (work.cuts != 1)}"
        counted.append(f"2 for each of {tests}" if work.cuts > 1 else f"2 for {tests}")
    return ", ".join(counted)


def _written(work: _Work, request: EvaluationRequest) -> str:
    if request.tasks is None or request.backend.kind == "hf":
        if work.composed:
            return "0 (each is set in place in one model in memory, tensor by tensor)"
        return "0 (the outputs are loaded one after the other)"
    written = work.candidates * work.composed + work.on_the_way
    return f"up to {written} for vLLM, one at a time: {size(work.written)} of scratch disk"


def _text(items: Prompts, context: int) -> str:
    if items.sampling is None:
        return f"{context:,} tokens of context, {items.most_tokens:,} of responses"
    return (
        f"{context:,} tokens of context, at most {items.most_tokens:,} of responses, which the "
        "last observed checkpoint samples"
    )


def _sampled(items: Prompts, models: int, request: EvaluationRequest) -> str:
    assert items.sampling is not None
    sampling = items.sampling
    sequences = len(items.items) * sampling.samples
    steps = math.ceil(sequences / sampling.batch_size) * sampling.max_new_tokens
    answering = models if request.describe else 1
    return f", and at most {answering * steps:,} steps of sampling"


def _most(items: Prompts, tokens: int) -> str:
    return f"{tokens:,}" if items.sampling is None else f"at most {tokens:,}"


def _tasks(work: _Work, others: int, request: EvaluationRequest) -> dict[str, str]:
    """Say how many questions are asked; their texts are read for it."""
    if request.tasks is None:
        return {}
    documents = {task.name: task.documents for task in loaded_tasks(request)}
    shown = 3 + work.base + others
    answers = most_answers(work.candidates, shown, documents) * request.tasks.settings.repeats
    questions = ", ".join(f"{name} {len(keys):,}" for name, keys in documents.items())
    return {"questions": questions, "answers": f"at most {answers:,}, of all models together"}
