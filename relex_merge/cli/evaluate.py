"""``relex-merge evaluate``: what candidates or finished outputs can do, measured."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import click

from relex_merge.cli.ahead import check_all, check_file, sign_of_life
from relex_merge.cli.merge_options import AskedOptions, merging_options
from relex_merge.cli.options import SIZE, Merging

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)

SECTIONS = {
    "Text": ("prompts", "text", "samples", "max_new_tokens", "seed", "describe"),
    "Tasks, through lm-eval": (
        *("tasks", "include_path", "limit", "num_fewshot", "gen_kwargs", "repeats"),
        *("apply_chat_template", "fewshot_as_multiturn", "system_instruction", "model"),
        *("model_args", "confirm_run_unsafe_code", "store"),
    ),
    "Models": ("targets", "scales", "anchors", "also", "every"),
    "Results": ("json", "plot", "choose", "output", "dry_run"),
    "Machine": ("batch_size", "memory_budget", "stream"),
}


class _Evaluate(Merging):
    sections = SECTIONS
    writes = False
    about: ClassVar[Mapping[str, str]] = {
        "RECIPE": "mergekit YAML with merge_method: relex.",
        "OUT": "The folder of a finished output, several of them, or a folder of step-N folders.",
    }


@click.command("evaluate", cls=_Evaluate)
@click.argument(
    "sources", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="RECIPE|OUT..."
)
@click.option(
    "--prompts",
    type=FILE,
    help="Prompts that the last observed checkpoint answers: JSON lines with `prompt` or chat "
    "`messages`, or plain lines. Without it and --text, models are compared on samples from the "
    "checkpoint's own start, which is the weakest choice.",
)
@click.option(
    "--text",
    type=FILE,
    help="Finished text in place of prompts: JSON lines with `prompt` and `response`, or `text`.",
)
@click.option("--samples", default=1, show_default=True, help="Responses to each prompt.")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1),
    help="The most tokens of a response.  [default: 64, or fewer where the model has no room]",
)
@click.option("--seed", default=0, show_default=True, help="Seed of sampling.")
@click.option(
    "--describe",
    is_flag=True,
    help="Let all models answer the prompts, and show length, truncation and repetition.",
)
@click.option("--tasks", help="Tasks of lm-eval, separated by commas.")
@click.option("--include-path", type=FOLDER, help="A folder with more task files.")
@click.option(
    "--limit", type=float, help="Ask only the first LIMIT questions of each task, or that share."
)
@click.option("--num-fewshot", type=click.IntRange(0), help="Examples before each question.")
@click.option(
    "--gen-kwargs",
    metavar="K=V,...",
    help="Decoding in place of the task's own, such as do_sample=true,temperature=0.6.",
)
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Answers to each question, for mean@k; they must be sampled.",
)
@click.option("--apply-chat-template", is_flag=True, help="Ask the questions as a chat.")
@click.option(
    "--fewshot-as-multiturn/--no-fewshot-as-multiturn",
    default=True,
    show_default=True,
    help="Give the examples as earlier turns of the chat.",
)
@click.option("--system-instruction", metavar="TEXT", help="System instruction of the chat.")
@click.option(
    "--model",
    default="hf",
    show_default=True,
    metavar="hf|vllm",
    help="Backend of lm-eval. For vllm candidates are written to the disk, one at a time.",
)
@click.option(
    "--model-args",
    metavar="K=V,...",
    help="Arguments of the backend as lm-eval has them, such as max_model_len=4096.",
)
@click.option(
    "--confirm-run-unsafe-code", is_flag=True, help="Let tasks run code that the models write."
)
@click.option(
    "--store",
    type=FOLDER,
    default=Path(".relex-evaluations"),
    show_default=True,
    help="A folder of finished measurements, none of which is made twice.",
)
@click.option(
    "--target-step",
    "targets",
    type=float,
    multiple=True,
    metavar="N",
    help="A target step of the candidates, in place of the recipe's own; may be repeated.",
)
@click.option(
    "--scale",
    "scales",
    type=float,
    multiple=True,
    metavar="λ",
    help="A scale of the candidates; may be repeated.  [default: 0.1, 0.3, 0.5, 1]",
)
@click.option(
    "--anchor",
    "anchors",
    multiple=True,
    metavar="ANCHOR",
    help="What candidates start from: line, last or average; may be repeated.  "
    "[default: last, and beside it the plain line]",
)
@click.option(
    "--also", metavar="REF", multiple=True, help="Another model, such as the real end of the run."
)
@click.option(
    "--every",
    type=click.IntRange(1),
    metavar="K",
    help="Observed checkpoints on the way too: those whose steps are multiples of K.",
)
@click.option(
    "--json",
    type=FILE,
    help="Write the whole evaluation here.  [default: beside RECIPE, as RECIPE.evaluation.json "
    "without .yml, where `run` finds it; for OUT nowhere]",
)
@click.option("--plot", type=FILE, help="Draw KL and scores against the target step.")
@click.option(
    "--choose", is_flag=True, help="Write the recipe that won, and its evaluation beside it."
)
@click.option("-o", "--output", type=FILE, help="The file for --choose.")
@click.option("--dry-run", is_flag=True, help="Say what it would cost; no weights are read.")
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Sequences in a forward pass; fewer where memory runs out.",
)
@click.option("--memory-budget", type=SIZE, help="Bytes the engine may use, for example 2G.")
@click.option(
    "--stream/--no-stream",
    default=None,
    help="Read checkpoints on the Hub in ranges, or download them. Base and last checkpoint are "
    "downloaded in any case.  [default: in ranges]",
)
@merging_options
def command(
    sources: tuple[Path, ...],
    json: Path | None,
    plot: Path | None,
    choose: bool,
    output: Path | None,
    dry_run: bool,
    asked: AskedOptions,
    **options: Any,
) -> None:
    """Measure what the candidates of RECIPE can do, or finished outputs OUT.

    Without labels: functional backtests, and how far each candidate's distributions over next
    tokens are from those of the last observed checkpoint. With --tasks: accuracies, with intervals,
    and a choice among the candidates.

    The verdict is about scale 1 at the recipe's own target, or about the first OUT. Several outputs
    must be of one series; a folder of `step-N` folders stands for all of them.
    """
    from relex_merge.recipe.ahead import check_ahead, check_hub

    if choose != (output is not None):
        raise click.UsageError("--choose and -o FILE go together")
    if options["prompts"] and options["text"]:
        raise click.UsageError("--prompts and --text are two sources of text; give one of them")
    check_all(
        *(partial(check_ahead, source) for source in sources if not source.is_dir()),
        partial(check_file, "--prompts", options["prompts"]),
        partial(check_file, "--text", options["text"]),
    )
    for source in sources:
        if not source.is_dir():
            check_hub(source)
    sign_of_life(asked.quiet)
    from relex_merge.cli.evaluation_text import render_evaluation
    from relex_merge.evaluation.destinations import Destinations, write_beside
    from relex_merge.evaluation.public import (
        forecast_request,
        make_request,
        open_sources,
        run_request,
    )

    named = options.pop("tasks")
    tasks = tuple(task.strip() for task in named.split(",") if task.strip()) if named else ()
    request = make_request(
        **options, tasks=tasks, options=asked.made(), quiet=asked.quiet, notify=_say
    )
    evaluated = open_sources(sources)
    if dry_run:
        click.echo(forecast_request(evaluated, request))
        return
    places = Destinations(json, output, plot)
    places.check()
    found = run_request(evaluated, request)
    click.echo(render_evaluation(found))
    if json is None and len(sources) == 1 and sources[0].is_file():
        write_beside(sources[0], found, _say)
    places.write(found, evaluated, _say)


def _say(message: str) -> None:
    click.echo(message, err=True)
