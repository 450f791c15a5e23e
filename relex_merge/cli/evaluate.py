"""``relex-merge evaluate``: what the candidates of a recipe can do, measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from mergekit.options import PrettyPrintHelp

from relex_merge.cli.options import SIZE, apply_globally, merging_options

if TYPE_CHECKING:
    from mergekit.options import MergeOptions

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("evaluate", cls=PrettyPrintHelp)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--prompts", type=FILE, help="Prompts that the last observed checkpoint answers.")
@click.option("--text", type=FILE, help="Finished text: JSONL with prompt and response, or text.")
@click.option("--samples", default=1, help="Responses to each prompt.", show_default=True)
@click.option("--max-new-tokens", default=64, help="Of a response.", show_default=True)
@click.option("--seed", default=0, help="Of sampling.", show_default=True)
@click.option("--describe", is_flag=True, help="Let candidates answer the prompts too.")
@click.option("--tasks", help="Tasks of lm-eval, separated by commas.")
@click.option(
    "--include-path",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder with more task files.",
)
@click.option("--limit", type=float, help="Only the first questions of each task, or a share.")
@click.option("--target-step", "targets", type=float, multiple=True, help="Of the candidates.")
@click.option("--scale", "scales", type=float, multiple=True, help="λ of the candidates.")
@click.option("--anchor", "anchors", multiple=True, help="line, last or average.")
@click.option("--also", metavar="REF", multiple=True, help="Another model, such as the real end.")
@click.option("--every", type=click.IntRange(1), help="Also observed steps that it divides.")
@click.option("--batch-size", default=16, show_default=True, help="Sequences in a forward pass.")
@click.option("--json", "json_file", type=FILE, help="Write the whole evaluation.")
@click.option("--choose", is_flag=True, help="Write the recipe that won to the file of -o.")
@click.option("-o", "--output", type=FILE, help="The chosen recipe, with --choose.")
@click.option("--memory-budget", type=SIZE, help="Bytes the engine may use, for example 2G.")
@click.option("--stream/--no-stream", default=None, help="As for run.")
@merging_options
def command(
    recipe: Path,
    json_file: Path | None,
    choose: bool,
    output: Path | None,
    merge_options: MergeOptions,
    **options: Any,
) -> None:
    """Measure what RECIPE's candidates can do: on text, and with --tasks on questions.

    Without labels: functional backtests, and how far each candidate's distributions over next
    tokens are from those of the last observed checkpoint. With labels: accuracies, and a choice.
    """
    from relex_merge.api import evaluate
    from relex_merge.report.evaluation_tables import render_function, render_tasks, render_verdict

    if choose != (output is not None):
        raise click.UsageError("--choose and -o FILE go together")
    apply_globally(merge_options)
    tasks = options.pop("tasks")
    found = evaluate(
        recipe,
        tasks=tuple(tasks.split(",")) if tasks else (),
        options=merge_options,
        quiet=merge_options.quiet,
        json=json_file,
        choose=output,
        **options,
    )
    for text in (render_function(found), render_tasks(found), render_verdict(found)):
        if text:
            click.echo(f"{text}\n")
    if output:
        click.echo(f"wrote {output}")
