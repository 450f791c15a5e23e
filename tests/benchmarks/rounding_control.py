"""Does the straight control know when 16-bit files make weights blind? On runs of known truth.

    python -m tests.benchmarks.rounding_control [--cache DIR] [--seeds 51]

Every cached miniature run (:mod:`tests.benchmarks.miniature`; none is trained here) is judged after
its first checkpoints from float32 files and from the same files in bfloat16, base and all ("base
rounded") or with a base that was bfloat16 from the start ("base exact"). Printed are the share of
rounding, estimated and true; the skill of the backtest, of its straight control and in float32; and
the verdict without and with the control beside the line's accuracy on held-out problems. "Gain":
at least the accuracy of the last observed checkpoint.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from relex_merge.demo.evaluate import evaluate
from relex_merge.demo.model import build_tokenizer, load_model, one_thread
from relex_merge.demo.tasks import load_task, split_prompts
from relex_merge.report.build import build_report, gather
from relex_merge.trajectory.backtests.assessment import assess
from relex_merge.trajectory.backtests.verdict import decide
from relex_merge.trajectory.parameters import Parameters
from relex_merge.trajectory.statistics import SeriesStatistics, TensorStatistics
from tests.benchmarks.calibrate_verdict import ORIGIN
from tests.benchmarks.miniature import (
    CACHE,
    OBSERVED,
    MiniatureRun,
    base_folder,
    keys,
    load_run,
)

TARGETS = (60, 100, 200)
KINDS = ("float32", "bf16, base rounded", "bf16, base exact")
Rows = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One judgement; before and after: the verdict without and with the control."""

    kind: str
    target: int
    last: float
    line: float
    before: str
    after: str
    skill: float | None
    control: float | None
    share: float
    true_share: float

    @property
    def gains(self) -> bool:
        return self.line >= self.last


def stored(run: MiniatureRun, kind: str) -> Rows:
    """The run's rows as files of this kind hold them, in float32."""
    if kind == "float32":
        return run.weights
    rounded = {name: w.bfloat16().float() for name, w in run.weights.items()}
    if kind == "bf16, base rounded":
        return rounded
    return {
        name: (rounded[name][:1] + (w - w[:1])).bfloat16().float()
        for name, w in run.weights.items()
    }


def statistics_of(rows: Rows, run: MiniatureRun) -> SeriesStatistics:
    found = {}
    for name, w in rows.items():
        M = (w[1 : OBSERVED + 1] - w[:1]).double()
        norm = float(w[0].double() @ w[0].double())
        moved = int(torch.count_nonzero(M[-1]))
        found[name] = TensorStatistics((M @ M.T).numpy(), norm, moved, M.shape[1])
    return SeriesStatistics(run.steps[:OBSERVED], found)


def movement(rows: Rows) -> torch.Tensor:
    return torch.cat([w[OBSERVED].double() - w[0].double() for w in rows.values()])


def judge(run: MiniatureRun, cache: Path) -> Iterator[Case]:
    """All kinds of files and all targets."""
    task = load_task(run.key.task)
    tokenizer = build_tokenizer(task)
    problems = split_prompts(task, run.key.settings.stream("problems")).held_out
    model = load_model(base_folder(run.key, cache))

    def accuracy(state: Rows) -> float:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(state[name].view_as(parameter))
        return evaluate(model, tokenizer, task, problems, 0).greedy

    true = movement(run.weights)
    for kind in KINDS:
        rows = stored(run, kind)
        statistics = statistics_of(rows, run)
        error = movement(rows) - true
        last = accuracy({name: w[OBSERVED] for name, w in rows.items()})
        dtype = kind if kind == "float32" else "bfloat16"
        for target in TARGETS:
            p = Parameters(float(target))
            report = build_report(statistics, p, ORIGIN, target_step=p.target_step, dtype=dtype)
            tried = assess(statistics, p, p.target_step, None)
            evidence = gather(tried, report["model"], report["random_walk"], dtype)
            predicted = {}
            for name, w in rows.items():
                weights = p.weights(statistics.tensors[name].gram, statistics.steps)
                deltas = w[1 : OBSERVED + 1] - w[:1]
                predicted[name] = w[0] + torch.from_numpy(weights).float() @ deltas
            yield Case(
                kind=kind,
                target=target,
                last=last,
                line=accuracy(predicted),
                before=decide(replace(evidence, rounding=None)).verdict,
                after=decide(evidence).verdict,
                skill=evidence.same_ratio,
                control=evidence.rounding.skill if evidence.rounding else None,
                share=evidence.rounding.share if evidence.rounding else 0.0,
                true_share=float(error @ error / (true @ true + error @ error)),
            )


def number(x: float | None) -> str:
    return "–" if x is None else f"{x:+.2f}"


def confusion(cases: Sequence[Case]) -> str:
    """Verdict → how many gained and lost, before and after."""
    lines = []
    for kind in KINDS:
        for when in ("before", "after"):
            counts = Counter((getattr(c, when), c.gains) for c in cases if c.kind == kind)
            words = sorted({word for word, _ in counts})
            told = "; ".join(f"{w}: {counts[w, True]} gain, {counts[w, False]} lose" for w in words)
            lines.append(f"{kind:<20}{when:<8}{told}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--seeds", default="51")
    options = parser.parse_args()
    cases: list[Case] = []
    with one_thread():
        for key in keys([int(seed) for seed in options.seeds.split(",")]):
            if not (options.cache / key.file_name).is_file():
                continue
            for case in judge(load_run(key, options.cache), options.cache):
                cases.append(case)
                print(
                    f"{key!s:<40}{case.kind:<20}{case.target:>4}  accuracy {case.last:.3f} → "
                    f"{case.line:.3f}  rounding {case.share:.3f} (true {case.true_share:.3f})  "
                    f"skill {number(case.skill)}, control {number(case.control)}  {case.before} → "
                    f"{case.after}",
                    flush=True,
                )
    print(confusion(cases))


if __name__ == "__main__":
    main()
