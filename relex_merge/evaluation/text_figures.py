"""What text shows: functional backtests, divergences, and what sampled responses look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from relex_merge.evaluation.assemble import TextResults
from relex_merge.evaluation.divergence import divergence, reference
from relex_merge.evaluation.estimates import skill
from relex_merge.evaluation.responses import ResponseStatistics, describe
from relex_merge.evaluation.sampling import Sampling, end_tokens, sample_responses
from relex_merge.evaluation.text import read_prompts, read_text
from relex_merge.evaluation.tokens import longest_by, start_items, tokenise
from relex_merge.pipeline.progress import progress_bar
from relex_merge.report.candidates import BASE, LAST, Candidate, Model
from relex_merge.report.estimate import Estimate
from relex_merge.report.functional import Backtest, Function, skill_at

if TYPE_CHECKING:
    from pathlib import Path

    from relex_merge.evaluation.compared import Compared
    from relex_merge.evaluation.divergence import Reference
    from relex_merge.evaluation.request import EvaluationRequest
    from relex_merge.evaluation.tokens import Item

UNPROMPTED = 64  # samples from the model's own start
ROOM = 8  # the fewest tokens that responses are shortened to


@dataclass(frozen=True)
class TextFigures:
    """results: figures for the file. function: what the rule asks of each candidate."""

    results: TextResults
    function: Mapping[Candidate, Function]


@dataclass(frozen=True)
class Prompts:
    """What models are compared on, as far as it is known before any model is loaded.

    items: prompts, or finished text. sampling: of responses, None for finished text. where: it came
    from, in words.
    """

    items: Sequence[Item]
    sampling: Sampling | None
    where: str

    @property
    def most_tokens(self) -> int:
        """The most response tokens that there will be."""
        if self.sampling is None:
            return sum(len(item.response) for item in self.items)
        return len(self.items) * self.sampling.samples * self.sampling.max_new_tokens


def read_items(request: EvaluationRequest, config: Any, tokenizer: Any) -> Prompts:
    """Read and check the text that was asked for.

    Args:
        request: files, and how responses are sampled.
        config: the model's transformers configuration, which says how much text it takes.
        tokenizer: of the last observed checkpoint.

    Raises:
        RelexError: naming file and line, of a text that is empty, too long, or not to be read.
    """
    limit = longest_by(config, tokenizer)
    if request.text is not None:
        items = tokenise(read_text(request.text), tokenizer, limit=limit)
        return Prompts(items, None, f"text of {request.text.name}")
    if request.prompts is not None:
        items = tokenise(read_prompts(request.prompts), tokenizer, limit=limit)
        where = f"responses of the last observed checkpoint to {request.prompts.name}"
        return Prompts(items, _fitting(request, items, limit), where)
    items = start_items(tokenizer, UNPROMPTED)
    where = (
        "samples of the last observed checkpoint from its own start: the weakest choice, give "
        "--prompts"
    )
    return Prompts(items, replace(_fitting(request, items, limit), never_empty=True), where)


def _fitting(request: EvaluationRequest, items: Sequence[Item], limit: int | None) -> Sampling:
    """Return how responses are sampled, shortened to what the model has room for if it may be."""
    asked = request.sampling
    if limit is None or not request.shorten:
        return asked
    room = limit - max(len(item.prompt) for item in items)
    return replace(asked, max_new_tokens=max(min(asked.max_new_tokens, room), ROOM))


def measure_text(compared: Compared, request: EvaluationRequest, scratch: Path) -> TextFigures:
    """Compare all models with the last observed checkpoint on text.

    Args:
        compared: the models.
        request: texts, and how responses are sampled.
        scratch: a folder for what does not fit into memory.

    Raises:
        RelexError: a text cannot be used, or a model gives logits that are not finite.
    """
    subjects = compared.subjects
    model = subjects.load(LAST)
    prompts = read_items(request, model.config, subjects.tokenizer)
    total = 1 + len(compared.backtests) + len(subjects.sources)
    with progress_bar("comparing models", quiet=request.quiet, delay=2) as start:
        advance = start(total)
        items = _answered(model, subjects.tokenizer, prompts)
        advance()
        batch_size = request.batch_size
        with reference(model, items, name=LAST, batch_size=batch_size, scratch=scratch) as known:
            advance()
            backtests = []
            for test in compared.backtests:
                predicted = subjects.load_for(f"prediction {test.fitted}", test.predicted)
                name = f"the backtest at {test.ratio:.3g}×"
                nearer = divergence(known, predicted, name=name)
                still = subjects.load_for(f"still {test.fitted}", test.still)
                stayed = divergence(known, still, name=f"checkpoint {test.fitted}")
                backtests.append(Backtest(test.ratio, skill(nearer, stayed)))
                advance()
            ends = end_tokens(model, subjects.tokenizer)
            del model  # it may be in the way of the next one
            responses: dict[Model, ResponseStatistics] = {}
            if prompts.sampling is not None:
                responses[LAST] = describe(items, ends)
            found: dict[Model, Estimate] = {}
            for which in subjects.sources:
                if which == LAST:
                    continue
                found[which] = _divergence(compared, which, known)
                if request.describe and prompts.sampling is not None and which != BASE:
                    answers = _answered(subjects.load(which), subjects.tokenizer, prompts)
                    responses[which] = describe(answers, ends)
                advance()
            tokens = known.tokens
    kl = {which: found[which] for which in compared.candidates}
    results = TextResults(
        prompts.where,
        tokens,
        len({item.cluster for item in items}),
        backtests,
        kl,
        {which: e for which, e in found.items() if isinstance(which, str)},
        responses,
        compared.remarks,
    )
    return TextFigures(results, _functions(compared, kl, backtests))


def _divergence(compared: Compared, which: Model, known: Reference) -> Estimate:
    name = which if isinstance(which, str) else which.name
    return divergence(known, compared.subjects.load(which), name=name).mean()


def _functions(
    compared: Compared, kl: Mapping[Candidate, Estimate], backtests: Sequence[Backtest]
) -> dict[Candidate, Function]:
    found = {}
    for which, estimate in kl.items():
        ratio = which.target_step / compared.last_step
        found[which] = Function(estimate, ratio, skill_at(backtests, ratio))
    return found


def _answered(model: Any, tokenizer: Any, prompts: Prompts) -> list[Item]:
    """Return the items with responses, sampled from ``model`` where there are none yet."""
    if prompts.sampling is None:
        return list(prompts.items)
    return sample_responses(model, tokenizer, prompts.items, prompts.sampling, name=LAST)
