"""The story: base → observed RLVR → trust report → RELEX → table.

Everything after the training goes through the public functions, as any user's series would.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from mergekit.options import MergeOptions
from tqdm import tqdm

from relex_merge.api import examine, extrapolate
from relex_merge.demo.evaluate import Accuracy, evaluate
from relex_merge.demo.functional import (
    PROMPTS,
    Measured,
    ask_functions,
    candidates_of,
    choose,
    divergence_of,
    statement_of_function,
    write_candidates,
)
from relex_merge.demo.lora import describe, load_policy, scale_adapter
from relex_merge.demo.model import (
    build_tokenizer,
    one_thread,
    quiet_transformers,
    save_in_bfloat16,
)
from relex_merge.demo.session import Session
from relex_merge.demo.table import DemoResult, Row, compare, render
from relex_merge.demo.task_files import task_name, write_task
from relex_merge.demo.tasks import load_task, split_prompts
from relex_merge.demo.training import train
from relex_merge.errors import disk_errors, pip_line
from relex_merge.report import render_text, save_html
from relex_merge.report.contents import to_json

if TYPE_CHECKING:
    from relex_merge.report.contents import Report
    from relex_merge.report.evaluation import Evaluation

BEYOND = 2  # the row "RELEX beyond" is at this many lengths of the full run
CURVE = (0.5, 1, 1.5, BEYOND)  # where RELEX's accuracy is drawn, in lengths of the full run
OBSERVED_POINTS, REAL_POINTS = 6, 20  # of the curves


@dataclass(frozen=True)
class Automatic:
    """What ``predictor: auto`` made: a folder, and whether it is the last observed checkpoint."""

    folder: Path
    stops: bool


@dataclass(frozen=True)
class Before:
    """What was said before anything was extrapolated."""

    report: Report
    evaluation: Evaluation


@dataclass(frozen=True)
class Made:
    """The models that were made: RELEX's by target step, the two-point line, auto's, the choice."""

    extrapolated: dict[int, Path]
    two_points: Path
    automatic: Automatic
    measured: Measured


class Story:
    """One demo, told in order by :meth:`tell`."""

    def __init__(
        self, session: Session, *, quick: bool, quiet: bool, echo: Callable[[str], object]
    ) -> None:
        self.session, self.quick, self.quiet, self.echo = session, quick, quiet, echo
        self.settings, self.out = session.settings, session.out
        self.task = load_task(self.settings.task)
        self.tokenizer = build_tokenizer(self.task)
        self.split = split_prompts(self.task, self.settings.stream("problems"))

    def tell(self) -> DemoResult:
        """Train, report, extrapolate, train on unless quick, measure, save. Raises RelexError."""
        observe, steps, rlvr = self.settings.observe, self.settings.steps, self.settings.rlvr
        lora = self.settings.lora
        trained = f" of a LoRA adapter of rank {lora.rank}" if lora else ""
        self.echo(
            f"Task: {self.task.summary}.\n"
            f"A base model, then {observe} of {steps} steps of RLVR{trained}: "
            f"{rlvr.prompts} × {rlvr.group} rollouts a step, learning rate {rlvr.lr:g}, a "
            f"checkpoint after every step{', stored in bfloat16' * self.settings.bf16}."
        )
        self._train(observe)
        recipe = self._write_recipe()
        write_task(self.out / "task", self.settings.task, self.task, self.split.held_out)
        before = Before(self._trust_report(recipe), self._ask_functions(recipe))
        extrapolated = self._extrapolate(recipe)
        automatic = self._automatic(recipe)
        measured = self._choose(recipe, extrapolated[steps], before.evaluation)
        if not self.quick:
            self.echo(f"The real run goes on to step {steps}, to compare (--quick leaves it out).")
            self._train(steps)
        made = Made(extrapolated, self._two_points(), automatic, measured)
        result = self._measure(before, made)
        self._save(result)
        self.echo(render(result.rows))
        self.echo(compare(result))
        if lora:
            self.echo(describe(extrapolated[steps], self.session.base))
        self.echo(
            f"Models, plots and reports are in {self.out}. The same by hand:\n"
            f"  relex-merge inspect {recipe}\n"
            f"  relex-merge evaluate {recipe} --prompts {recipe.with_name('prompts.jsonl')}\n"
            f"  relex-merge evaluate {recipe} --tasks {task_name(self.settings.task)} "
            f"--include-path {self.out / 'task'}\n"
            f"  relex-merge run {recipe} OUT"
        )
        return result

    def _train(self, last: int) -> None:
        train(self.session, self.tokenizer, self.task, self.split.train, last, quiet=self.quiet)

    def _stored(self, steps: Iterable[int]) -> dict[int, Path]:
        """Return step → folder in which it is observed; a copy is made where that is missing."""
        found = {step: self.session.stored(step) for step in steps}
        for step, folder in found.items():
            if not folder.is_dir():
                save_in_bfloat16(self.session.checkpoint(step), self.tokenizer, folder)
        return found

    def _write_recipe(self) -> Path:
        """Write the recipe that a user of this series would write."""
        recipe, observe = self.out / "recipe.yml", self.settings.observe
        stored = self._stored(range(observe + 1))
        content = {
            "merge_method": "relex",
            "base_model": str(stored[0]),
            "models": [
                {"model": f"{stored[1].parent / self.session.prefix}{{1..{observe}}}"},
            ],
            "parameters": {"target_step": self.settings.steps},
        }
        with disk_errors(recipe):
            recipe.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return recipe

    def _trust_report(self, recipe: Path) -> Report:
        """Show what ``relex-merge inspect`` says, before anything is extrapolated."""
        found = examine(recipe, quiet=True)
        folder = self.out / "trust-report"
        text = render_text(found.report)
        with disk_errors(folder):
            folder.mkdir(exist_ok=True)
            (folder / "report.txt").write_text(text + "\n", encoding="utf-8")
            (folder / "report.json").write_text(to_json(found.report), encoding="utf-8")
            if find_spec("matplotlib"):
                save_html(found.report, found.observed, folder / "report.html")
        verdict = found.report["verdict"]
        reasons = "".join(f"\n  - {reason}" for reason in verdict["reasons"])
        self.echo(
            f"Trust report, before extrapolating to step {self.settings.steps}: "
            f"{verdict['verdict']}{reasons}"
        )
        return found.report

    def _ask_functions(self, recipe: Path) -> Evaluation:
        """Show what ``relex-merge evaluate`` says from prompts that were trained on."""
        prompts = self.split.train[:PROMPTS]
        seed = self.settings.stream("functional evaluation")
        found = ask_functions(recipe, prompts, self.task, seed)
        said = statement_of_function(found)
        reasons = "".join(f"\n  - {reason}" for reason in said["says"])
        self.echo(
            f"Evaluation, on the last observed checkpoint's answers to {len(prompts)} prompts: "
            f"{said['verdict'] or 'cannot tell'}{reasons}"
        )
        return found

    def _choose(self, recipe: Path, plain: Path, evaluation: Evaluation) -> Measured:
        """Choose among scaled candidates by answers to a quarter of the held-out problems."""
        candidates = candidates_of(evaluation)
        folders = write_candidates(recipe, candidates, plain, self.out / "choice")
        found = choose(
            self.session, self.tokenizer, self.task, self.split.held_out, folders, evaluation
        )
        self.echo(
            f"Measured choice, by {found.choosing:,} of the held-out problems: {found.name}\n"
            f"  - {found.reasons[0]}\n"
            f"  - Its row below is about the other {found.accuracy.problems:,} problems."
        )
        return found

    def _extrapolate(self, recipe: Path) -> dict[int, Path]:
        """Write a model for each target step, all from one pass over the observed checkpoints."""
        targets = sorted({round(self.settings.steps * length) for length in CURVE})
        later = [target for target in targets if target > self.settings.observe]
        result = extrapolate(recipe, self.out / "relex", target_step=later, force=True, quiet=True)
        return {int(step): folder for step, folder in result.outputs.items()}

    def _automatic(self, line: Path) -> Automatic:
        """Run the same recipe with ``predictor: auto``."""
        recipe = self.out / "recipe-auto.yml"
        content = yaml.safe_load(line.read_text(encoding="utf-8"))
        content["parameters"]["predictor"] = "auto"
        with disk_errors(recipe):
            recipe.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        made = extrapolate(
            recipe, self.out / "auto", force=True, figure=False, quiet=True, anyway=True
        )
        choice = made.report["choice"]
        said = "stop at the last observed checkpoint" if choice["stops"] else choice["predictor"]
        self.echo(f"predictor: auto says: {said}\n  - {choice['reasons'][0]}")
        return Automatic(made.out, choice["stops"])

    def _two_points(self) -> Path:
        """Make the line through base and last observed checkpoint, by a plain mergekit recipe.

        θ₀ + (s*/s_T)(θ_T − θ₀) is task arithmetic with weight s*/s_T; an adapter is scaled by it.
        """
        last = self.session.stored(self.settings.observe)
        weight = self.settings.steps / self.settings.observe
        if self.settings.lora:
            return scale_adapter(last, weight, self.out / "two-point")
        recipe = {
            "merge_method": "task_arithmetic",
            "base_model": str(self.session.stored(0)),
            "models": [{"model": str(last), "parameters": {"weight": weight}}],
            "dtype": "float32",
        }
        options = MergeOptions(quiet=True)
        with quiet_transformers():
            made = extrapolate(
                recipe, self.out / "two-point", force=True, options=options, quiet=True
            )
        return made.out

    def _measure(self, before: Before, made: Made) -> DemoResult:
        observe, steps = self.settings.observe, self.settings.steps
        automatic = made.automatic
        models = {
            "observed": self._stored(_spread(0, observe, OBSERVED_POINTS)),
            "extrapolated": made.extrapolated,
            "two-point": {steps: made.two_points},
            "auto": {observe if automatic.stops else steps: automatic.folder},
        }
        if not self.quick:
            models["real"] = self._stored(_spread(observe, steps, REAL_POINTS))
        with tqdm(
            total=sum(map(len, models.values())), desc="measuring", disable=self.quiet
        ) as bar:
            curves = {
                name: [(step, self._accuracy(folder, bar)) for step, folder in folders.items()]
                for name, folders in models.items()
            }
        at = {name: dict(curve) for name, curve in curves.items()}
        rows = self._rows(at, before.evaluation, made.measured)
        return DemoResult(self.out, rows, curves, before.report, before.evaluation, made.measured)

    def _accuracy(self, folder: Path, bar: tqdm[Any]) -> Accuracy:
        seed = self.settings.stream("evaluation")
        with one_thread():
            model = load_policy(self.session, folder)
            accuracy = evaluate(model, self.tokenizer, self.task, self.split.held_out, seed)
        bar.update()
        return accuracy

    def _rows(
        self, at: dict[str, dict[int, Accuracy]], evaluation: Evaluation, measured: Measured
    ) -> tuple[Row, ...]:
        observe, steps = self.settings.observe, self.settings.steps
        each = self.settings.rlvr.rollouts
        spent, beyond = observe * each, BEYOND * steps
        line, chosen = candidates_of(evaluation)[0], measured.candidate
        kl, ratio = divergence_of(evaluation, line), steps / observe
        base_kl = next(m["kl"] for m in evaluation["function"]["others"] if m["model"] == "base")
        rows = [
            Row("base", 0, at["observed"][0], 0, None, base_kl),
            Row("last observed", observe, at["observed"][observe], spent, 1.0, 0.0),
            Row("RELEX", steps, at["extrapolated"][steps], spent, ratio, kl),
            Row("RELEX beyond", beyond, at["extrapolated"][beyond], spent, beyond / observe),
            Row("two-point line", steps, at["two-point"][steps], spent, ratio),
            *(Row("auto", s, accuracy, spent, s / observe) for s, accuracy in at["auto"].items()),
            Row(
                "measured choice",
                observe if chosen is None else steps,
                measured.accuracy,
                spent,
                1.0 if chosen is None else ratio,
                0.0 if chosen is None else divergence_of(evaluation, chosen),
                f"λ = {0 if chosen is None else chosen.scale:g}",
            ),
        ]
        if not self.quick:
            rows.append(Row("real RLVR", steps, at["real"][steps], steps * each, 1.0))
        return tuple(rows)

    def _save(self, result: DemoResult) -> None:
        file = self.out / "results.json"
        with disk_errors(file):
            file.write_text(json.dumps(result.as_dict(), indent=1) + "\n", encoding="utf-8")
        if not find_spec("matplotlib"):
            self.echo(f"No plots: they need matplotlib ({pip_line('plot')}).")
            return
        from relex_merge.demo.plot import save_accuracy_plot

        title = f"{self.task.summary}; {self.settings.observe} steps observed"
        with disk_errors(self.out):
            save_accuracy_plot(
                result.curves, self.settings.observe, title, self.out / "accuracy.png"
            )


def _spread(first: int, last: int, points: int) -> list[int]:
    """``points`` + 1 steps from ``first`` to ``last``, evenly spaced, each once."""
    return sorted({first + round((last - first) * i / points) for i in range(points + 1)})
