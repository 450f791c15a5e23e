"""``relex-merge demo``: the whole story on a laptop CPU, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command("demo")
@click.argument("out", type=click.Path(path_type=Path), default=Path("relex-demo"))
@click.option("--task", default="addition", show_default=True, help="What is learnt.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--steps", type=int, default=200, show_default=True, help="Length of the full run.")
@click.option("--observe", type=int, default=30, show_default=True, help="Steps really trained.")
@click.option("--lr", type=float, help="Learning rate of the RLVR run  [default: the task's]")
@click.option("--quick", is_flag=True, help="Leave out the real end of the run, to compare with.")
@click.option("--bad", is_flag=True, help="A setting in which extrapolation fails, and is told so.")
@click.option(
    "--warm-up", is_flag=True, help="A run with a learning-rate warm-up: auto beats the line."
)
@click.option("--lora", is_flag=True, help="Train a LoRA adapter, and end with an adapter.")
@click.option(
    "--bf16", is_flag=True, help="Checkpoints stored in bfloat16, where weights cannot tell."
)
@click.option(
    "--trainer", type=click.Choice(["builtin", "trl"]), default="builtin", show_default=True
)
@click.option("--force", is_flag=True, help="Replace OUT.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error.")
def command(out: Path, verbose: bool, **how: Any) -> None:
    """Train a tiny model by RLVR, watch its first steps, write the end of the run, and compare."""
    from relex_merge.demo import run_demo

    run_demo(out, echo=click.echo, **how)
