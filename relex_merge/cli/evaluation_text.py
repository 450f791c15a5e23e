"""An evaluation on the terminal, 80 columns wide: the verdict first, then what it rests on."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from relex_merge.formatting import cell
from relex_merge.report.evaluation import Evaluation, Split, TaskEntry

WIDTH = 80
SPLITS: dict[Split, str] = {
    "choosing": "questions that candidates are chosen by",
    "reported": "questions that had no part in the choice",
}


def render_evaluation(evaluation: Evaluation) -> str:
    """Return everything that an evaluation found, as text."""
    parts = [_verdict(evaluation), _chosen(evaluation), *_tasks(evaluation), _text(evaluation)]
    return "\n\n".join(part for part in parts if part)


def _verdict(evaluation: Evaluation) -> str:
    verdict = evaluation["verdict"]
    lines = [f"Verdict: {verdict['verdict']} (evidence: {verdict['evidence']})"]
    for statement in verdict["statements"]:
        lines += ["", f"{statement['evidence']}: {statement['verdict'] or 'cannot tell'}"]
        lines += [_item(says) for says in statement["says"]]
        lines.append(_item(f"What it cannot see: {statement['cannot_see']}"))
    return "\n".join(lines)


def _chosen(evaluation: Evaluation) -> str:
    chosen = evaluation["chosen"]
    return "\n".join([f"Chosen: {chosen['model']}", *map(_item, chosen["reasons"])])


def _tasks(evaluation: Evaluation) -> Iterator[str]:
    """Yield a table for each part of each task, and the sentences on all of them."""
    for task, entries in evaluation["tasks"].items():
        for split in ("reported", "choosing"):
            part = [entry for entry in entries if entry["split"] == split]
            if part:
                yield f"{_wrapped(_heading(task, part))}\n{_scores(part)}"
    if evaluation["sentences"]:
        yield "\n".join(map(_item, evaluation["sentences"]))


def _heading(task: str, part: Sequence[TaskEntry]) -> str:
    first = part[0]
    metric, _, filter_ = first["metric"].partition(",")
    filtered = f" ({filter_})" if filter_ not in ("", "none") else ""
    repeats = f", mean@{first['repeats']}" if first["repeats"] > 1 else ""
    return f"{task}: {metric}{filtered}{repeats}, {SPLITS[first['split']]}"


def _scores(part: Sequence[TaskEntry]) -> str:
    rows = [
        (
            entry["model"],
            str(entry["n"]),
            f"{entry['score']:.3f}",
            cell(entry["stderr"], ".3f"),
            cell(entry["difference"], "+.3f"),
            cell(entry["difference_stderr"], ".3f"),
        )
        for entry in part
    ]
    return table(("Model", "n", "score", "± stderr", "from last", "± stderr"), rows)


def _text(evaluation: Evaluation) -> str:
    function = evaluation["function"]
    tokens, prompts = function["tokens"], function["prompts"]
    parts = [_wrapped(f"Text: {tokens:,} tokens, {prompts} prompts ({function['text']})")]
    parts += [_wrapped(remark) for remark in function.get("remarks", [])]
    if function["backtests"]:
        tests = [
            (f"{t['ratio']:.3g}×", cell(t["skill"], "+.2f"), cell(t["stderr"], ".2f"))
            for t in function["backtests"]
        ]
        parts.append(table(("Functional backtest at", "skill", "± stderr"), tests))
    models = [
        (m["model"], f"{m['kl']:.3g}", cell(m["stderr"], ".2g"))
        for m in [*function["candidates"], *function["others"]]
    ]
    parts.append(table(("KL from last observed, nats a token", "KL", "± stderr"), models))
    if function["responses"]:
        responses = [
            (r["model"], f"{r['length']:.1f}", f"{r['truncated']:.0%}", f"{r['repetition']:.0%}")
            for r in function["responses"]
        ]
        parts.append(table(("Responses of", "tokens", "cut off", "repeated 4-grams"), responses))
    return "\n\n".join(parts)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose others are figures.

    A name that would make it wider than WIDTH goes on a line of its own.
    """
    figures = [max(len(row[i]) for row in [headers, *rows]) for i in range(1, len(headers))]
    room = WIDTH - sum(width + 2 for width in figures)
    first = min(max(len(row[0]) for row in [headers, *rows]), room)
    lines = []
    for row in [headers, *rows]:
        numbers = "".join(
            f"  {cell_:>{width}}" for cell_, width in zip(row[1:], figures, strict=True)
        )
        if len(row[0]) > first:
            lines.append(row[0])
            lines.append(" " * first + numbers)
        else:
            lines.append(f"{row[0]:<{first}}{numbers}")
    return "\n".join(lines)


def _item(sentence: str) -> str:
    return _wrapped(sentence, "  - ")


def _wrapped(sentence: str, bullet: str = "") -> str:
    return textwrap.fill(
        sentence,
        WIDTH,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )
