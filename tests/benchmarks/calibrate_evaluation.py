"""How often is the measured verdict right, and what is the measured choice worth?

    python -m tests.benchmarks.calibrate_evaluation [--cache DIR] [--workers 2] [--json FILE]
        [--tuning 51,52] [--seeds 61,62,63,64] [--lora-tuning 51] [--lora-seeds 61,62,63,64]

Miniature RLVR runs (:mod:`tests.benchmarks.miniature`; trained first where the cache lacks them)
are cut off after 30 of 200 steps, written as float32 and as bfloat16 files, and judged for targets
60, 100 and 200 by what ``relex-merge evaluate`` uses: functional backtests and KL on responses of
the last observed checkpoint to 256 training problems, and the greedy accuracy on 2,048 held-out
problems, a fixed quarter of which chooses and the rest of which is reported.

A case is a gain when the line answers at least as many held-out problems as the last observed
checkpoint. First a scan of the two thresholds on the tuning seeds; then weights, function, labels
and the measured choice with the thresholds in use, on seeds that had no part in setting them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mergekit.options import MergeOptions

from relex_merge.demo.model import build_tokenizer, decode, encode, one_thread, quiet_transformers
from relex_merge.demo.sampling import answer
from relex_merge.demo.tasks import Task, load_task, split_prompts
from relex_merge.engine.resources import available
from relex_merge.evaluation.assemble import overall
from relex_merge.evaluation.choice import choose_by_function
from relex_merge.evaluation.divergence import Reference, divergence, reference
from relex_merge.evaluation.estimates import skill
from relex_merge.evaluation.live_model import LiveModel
from relex_merge.evaluation.measured_choice import measured_choice, report
from relex_merge.evaluation.request import SCALES
from relex_merge.evaluation.sampling import Sampling, sample_responses
from relex_merge.evaluation.scores import TaskScores
from relex_merge.evaluation.series_models import Cut, SeriesModels, cuts_at
from relex_merge.evaluation.text import Text
from relex_merge.evaluation.tokens import longest, tokenise
from relex_merge.pipeline.inspection import of_series
from relex_merge.pipeline.prepare import prepare
from relex_merge.pipeline.progress import progress_bar
from relex_merge.recipe.load import load_recipe
from relex_merge.recipe.variant import Variant
from relex_merge.report.candidates import LAST, Candidate, Model
from relex_merge.report.final_verdict import Geometry, decide
from relex_merge.report.functional import (
    SAFE,
    SKILL,
    Backtest,
    Function,
    skill_at,
)
from relex_merge.trajectory.statistics import SeriesStatistics
from tests.benchmarks.miniature import CACHE, Key, load_run, lora_keys, make, plain_keys
from tests.benchmarks.miniature_series import write_series

TARGETS = (60.0, 100.0, 200.0)
DTYPES = (torch.float32, torch.bfloat16)
PROMPTS = 256
SKILLS = (-0.5, -0.25, 0.0, 0.25, 0.5)  # thresholds that are scanned
REGIONS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
TOLERANCE = 0.02  # two points: as much as the measured choice may lose


@dataclass(frozen=True)
class Case:
    """One run, one dtype, one target.

    weights, function: words of the verdict from these alone; labels: better, "yes", "no" or
    "cannot be told". skill, kl: the functional figures of the line. last, line, chosen, best:
    accuracies on the reported problems, of the last observed checkpoint, the line, the measured
    choice, and the best of all candidates and the last; unlabelled: of the choice by function.
    gain: of the line over the last on all held-out problems.
    """

    run: str
    lora: bool
    dtype: str
    target: float
    weights: str
    function: str
    labels: str
    skill: float | None
    kl: float
    gain: float
    last: float
    line: float
    chosen: float
    unlabelled: float
    best: float
    choice: str

    @property
    def gains(self) -> bool:
        """Whether the line is at least as good as the last observed checkpoint."""
        return self.gain >= 0

    def supported(self, least: float = SKILL, region: float = SAFE) -> bool:
        """Whether the functional rule is for it."""
        return self.skill is not None and self.skill > least and self.kl < region


class _Answers:
    """Which held-out problems each model answers rightly, greedily; each model once."""

    def __init__(self, task: Task, tokenizer: Any, problems: list[str]) -> None:
        self._task, self._tokenizer, self._problems = task, tokenizer, problems
        self._questions = encode(tokenizer, problems)
        self.right: dict[Model, dict[str, float]] = {}

    def measure(self, model: Model, live: Any) -> None:
        with torch.inference_mode():
            rollouts = answer(live, self._questions, length=self._task.answer_length + 1)
        answers = decode(self._tokenizer, rollouts.tokens)
        pairs = zip(self._problems, answers, strict=True)
        self.right[model] = {p: float(self._task.verify(p, a)) for p, a in pairs}

    def ask(self, model: Model, task: str, keys: Sequence[str]) -> TaskScores:
        """As the harness does."""
        return TaskScores(self.right[model]).only(keys)

    def accuracy(self, model: Model) -> float:
        return float(np.mean(list(self.right[model].values())))


def judge(key: Key, cache: Path, dtype: torch.dtype) -> list[Case]:
    """All targets of one run in one dtype."""
    task = load_task(key.task)
    tokenizer = build_tokenizer(task)
    split = split_prompts(task, key.settings.stream("problems"))
    with tempfile.TemporaryDirectory() as folder, one_thread(), quiet_transformers():
        recipe = write_series(load_run(key, cache), cache, Path(folder, "series"), dtype)
        merge = MergeOptions()
        ready = {
            t: prepare(load_recipe(recipe, target_step=t), [Variant()], merge, None)
            for t in TARGETS
        }
        prepared = ready[TARGETS[-1]]
        lines = {t: Candidate(t) for t in TARGETS}
        grid = {t: [lines[t], *(Candidate(t, s, "last") for s in SCALES)] for t in TARGETS}
        cuts = {t: cuts_at(prepared.plan.steps, t) for t in TARGETS}
        live = LiveModel(prepared.snapshots[0].folder, str(key), torch.device("cpu"))
        models = SeriesModels(
            prepared.plan,
            live,
            [c for candidates in grid.values() for c in candidates],
            list({cut.fitted: cut for some in cuts.values() for cut in some}.values()),
            Path(folder, "deltas"),
        )
        with progress_bar("", quiet=True, in_bytes=True) as bar:
            seen = models.read(available(merge, None), bar)
        statistics = SeriesStatistics(prepared.plan.steps, dict(seen), prepared.fingerprint())
        answers = _Answers(task, tokenizer, split.held_out)
        last = len(prepared.plan.steps)
        models.put_row(last)
        answers.measure(LAST, live.model)
        prompts = [Text(p, None, f"problem {i}") for i, p in enumerate(split.train[:PROMPTS])]
        items = sample_responses(
            live.model,
            tokenizer,
            tokenise(prompts, tokenizer, limit=longest(live.model, tokenizer)),
            Sampling(max_new_tokens=task.answer_length + 1),
            name=LAST,
        )
        found: list[Case] = []
        with reference(live.model, items, name=LAST, batch_size=64) as known:
            tests = {
                cut: _backtest(cut, models, live, known)
                for cut in {c for some in cuts.values() for c in some}
            }
            kl = {}
            for candidate in (c for candidates in grid.values() for c in candidates):
                models.put_candidate(candidate)
                kl[candidate] = divergence(known, live.model, name=candidate.name).mean()
                answers.measure(candidate, live.model)
        for target, candidates in grid.items():
            ratio = target / float(prepared.plan.steps[-1])
            reached = skill_at([tests[cut] for cut in cuts[target]], ratio)
            function = {c: Function(kl[c], ratio, reached) for c in candidates}
            word = of_series(ready[target], statistics).report["verdict"]
            geometry = Geometry(word["verdict"], word["reasons"])
            found.append(_case(key, dtype, lines[target], candidates, answers, function, geometry))
    return found


def _backtest(cut: Cut, models: SeriesModels, live: LiveModel, known: Reference) -> Backtest:
    models.put_backtest(cut)
    predicted = divergence(known, live.model, name="backtest")
    models.put_row(cut.fitted)
    still = divergence(known, live.model, name="last fitted")
    return Backtest(cut.ratio, skill(predicted, still))


def _case(
    key: Key,
    dtype: torch.dtype,
    line: Candidate,
    candidates: Sequence[Candidate],
    answers: _Answers,
    function: dict[Candidate, Function],
    geometry: Geometry,
) -> Case:
    documents = {"held out": list(answers.right[LAST])}
    choice, _ = measured_choice(candidates, documents, answers.ask, function)
    unlabelled = choose_by_function(line, function).chosen
    shown: list[Model] = [LAST, *candidates]
    reported = report(shown, documents, answers.ask)
    score = {model: scores["held out"].mean().value for model, scores in reported.items()}
    says = decide(geometry, function[line])
    figures = function[line]
    return Case(
        run=str(key),
        lora=key.lora,
        dtype=str(dtype).removeprefix("torch."),
        target=line.target_step,
        weights=geometry.verdict,
        function=says.verdict if says.evidence == "function" else "cannot tell",
        labels=overall(line, reported).better,
        skill=None if figures.skill is None else figures.skill.value,
        kl=figures.kl.value,
        gain=answers.accuracy(line) - answers.accuracy(LAST),
        last=score[LAST],
        line=score[line],
        chosen=score[choice.chosen or LAST],
        unlabelled=score[unlabelled or LAST],
        best=max(score.values()),
        choice=LAST if choice.chosen is None else choice.chosen.name,
    )


def judge_all(keys: Sequence[Key], cache: Path, workers: int) -> list[Case]:
    """Train what is missing, then judge every run in every dtype."""
    make(keys, cache, workers)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(judge, key, cache, dtype) for key in keys for dtype in DTYPES]
        return [case for job in jobs for case in job.result()]


# What is shown.


def scan(cases: Sequence[Case]) -> str:
    """Errors of the functional rule for every pair of thresholds: harmful go + missed gain."""
    lines = ["| skill > | " + " | ".join(f"KL < {region:g}" for region in REGIONS) + " |"]
    lines.append("|---" * (len(REGIONS) + 1) + "|")
    for least in SKILLS:
        cells = []
        for region in REGIONS:
            harmful = sum(c.supported(least, region) and not c.gains for c in cases)
            missed = sum(not c.supported(least, region) and c.gains for c in cases)
            cells.append(f"{harmful} + {missed}")
        lines.append(f"| {least:+g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


RULES: dict[str, Callable[[Case], str]] = {
    "weights": lambda case: case.weights,
    "function": lambda case: case.function,
    "labels": lambda case: case.labels,
}
GO, STOP = ("extrapolate", "yes"), ("do not extrapolate", "no")


def confusion(cases: Sequence[Case]) -> str:
    """Every rule against what came out."""
    lines = [
        "| rule | right go | harmful go | missed gain | right stop | abstains (gains) | right |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rule in RULES.items():
        counts: Counter[tuple[str, bool]] = Counter()
        for case in cases:
            word = rule(case)
            kind = "go" if word in GO else "stop" if word in STOP else "neither"
            counts[kind, case.gains] += 1
        go, harm = counts["go", True], counts["go", False]
        missed, stop = counts["stop", True], counts["stop", False]
        neither = counts["neither", True] + counts["neither", False]
        judged = go + harm + missed + stop
        right = f"{(go + stop) / judged:.1%}" if judged else "–"
        lines.append(
            f"| {name} | {go} | {harm} | {missed} | {stop} | {neither} "
            f"({counts['neither', True]}) | {right} |"
        )
    return "\n".join(lines)


def worth(cases: Sequence[Case]) -> str:
    """What the measured choice gains and loses, in points of accuracy on the reported problems."""
    lines = [
        "| | mean over last | worst over last | mean over line | worst over line | mean regret | "
        "largest regret | below last by > 2 points |",
        "|---|---|---|---|---|---|---|---|",
    ]
    ways: dict[str, Callable[[Case], float]] = {
        "measured choice": lambda case: case.chosen,
        "choice without labels": lambda case: case.unlabelled,
        "the line": lambda case: case.line,
    }
    for name, way in ways.items():
        over_last = np.array([way(c) - c.last for c in cases]) * 100
        over_line = np.array([way(c) - c.line for c in cases]) * 100
        regret = np.array([c.best - way(c) for c in cases]) * 100
        lines.append(
            f"| {name} | {over_last.mean():+.1f} | {over_last.min():+.1f} | {over_line.mean():+.1f}"
            f" | {over_line.min():+.1f} | {regret.mean():.1f} | {regret.max():.1f} | "
            f"{int((over_last < -100 * TOLERANCE).sum())} of {len(cases)} |"
        )
    return "\n".join(lines)


def errors(cases: Sequence[Case]) -> str:
    """Every case that function got wrong."""
    lines = [
        f"- {c.run}, {c.dtype}, to {c.target:g}: skill "
        f"{'none' if c.skill is None else f'{c.skill:+.2f}'}, KL {c.kl:.3g}, accuracy "
        f"{c.last:.3f} → {c.line:.3f} (says {c.function})"
        for c in cases
        if (c.function in GO and not c.gains) or (c.function in STOP and c.gains)
    ]
    return "\n".join(lines) or "None."


def show(title: str, cases: Sequence[Case]) -> str:
    """Everything about some cases, part by part."""
    text = [f"## {title}: {len(cases)} cases, {sum(c.gains for c in cases)} gains"]
    parts: dict[tuple[bool, str], list[Case]] = {}
    for case in cases:
        parts.setdefault((case.lora, case.dtype), []).append(case)
    for (lora, dtype), part in parts.items():
        text.append(f"### {'LoRA' if lora else 'Whole models'}, {dtype} files")
        text += [confusion(part), worth(part)]
    text += ["### All", confusion(cases), worth(cases), "Errors of function:"]
    return "\n\n".join([*text, errors(cases)])


def main() -> None:
    """Calibrate from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tuning", default="51,52", help="seeds that may set thresholds")
    parser.add_argument("--seeds", default="61,62,63,64", help="seeds that set nothing")
    parser.add_argument("--lora-tuning", default="51")
    parser.add_argument("--lora-seeds", default="61,62,63,64")
    parser.add_argument("--json", type=Path, help="write all cases there")
    options = parser.parse_args()

    def judged(seeds: str, lora_seeds: str) -> list[Case]:
        plain, lora = ([int(s) for s in text.split(",") if s] for text in (seeds, lora_seeds))
        keys = [*plain_keys(plain), *lora_keys(lora)]
        return judge_all(keys, options.cache, options.workers)

    tuning = judged(options.tuning, options.lora_tuning)
    if tuning:
        print(f"## Thresholds on {len(tuning)} tuning cases: harmful go + missed gain\n")
        print(scan(tuning), "\n")
        print(show("Tuning seeds", tuning), "\n", flush=True)
    tested = judged(options.seeds, options.lora_seeds)
    if tested:
        print(show("Seeds that set nothing", tested))
    if options.json:
        rows = {"tuning": [asdict(c) for c in tuning], "tested": [asdict(c) for c in tested]}
        options.json.write_text(json.dumps(rows, indent=1, allow_nan=False))


if __name__ == "__main__":
    main()
