"""Text that models are compared on, as the user's files hold it.

Prompts, to be answered by a model: JSON lines with ``prompt`` (a string, or chat messages as TRL
stores them) or ``messages``, or plain text, one prompt a line. Finished text: JSON lines with
``prompt`` and ``response``, or ``text``. Blank lines are skipped. A file is JSON lines when its
name ends in ``.jsonl`` or ``.json``, or when it does not end in ``.txt`` and begins with ``{``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from relex_merge.errors import RelexError

Messages: TypeAlias = tuple[dict[str, str], ...]

NOT_JSON = (".txt",)
JSON = (".jsonl", ".json")


@dataclass(frozen=True)
class Text:
    """One item of the user's text.

    prompt: a string, or chat messages that end with the turn to be answered; None where only
    ``response`` counts, which is then the whole text. response: None where a model shall answer.
    place: ``FILE:LINE``, for messages to the user.
    """

    prompt: str | Messages | None
    response: str | None
    place: str


def read_prompts(file: Path) -> list[Text]:
    """Read prompts to be answered.

    Raises:
        RelexError: naming file and line, when the file is unreadable, empty or not what the
            module text describes, or when a prompt is empty.
    """
    content = _content(file)
    lines = _lines(file, content)
    if not _is_json(file, content):
        return [Text(line, None, place) for place, line in lines]
    prompts = []
    for place, line in lines:
        row = _row(place, line)
        value = row.get("messages", row.get("prompt"))
        if value is None:
            raise RelexError(
                f"{place}: neither `prompt` nor `messages` in {sorted(row)}; give each line one"
            )
        prompts.append(Text(_prompt(place, value), None, place))
    return prompts


def read_text(file: Path) -> list[Text]:
    """Read finished text: prompts with responses, or plain ``text``.

    Raises:
        RelexError: naming file and line, as :func:`read_prompts` does.
    """
    texts = []
    for place, line in _lines(file, _content(file)):
        row = _row(place, line)
        if "text" in row:
            texts.append(Text(None, _filled(place, "text", row["text"]), place))
        elif "prompt" in row and "response" in row:
            response = _filled(place, "response", row["response"])
            texts.append(Text(_prompt(place, row["prompt"]), response, place))
        else:
            raise RelexError(
                f"{place}: needs `text`, or `prompt` and `response`; has {sorted(row)}"
            )
    return texts


def _lines(file: Path, content: str) -> list[tuple[str, str]]:
    """Return FILE:LINE and the text of every line that is not blank; there must be one."""
    lines = content.split("\n")
    filled = [(f"{file}:{n}", line.strip("\r")) for n, line in enumerate(lines, 1) if line.strip()]
    if not filled:
        raise RelexError(f"{file} is empty; give it at least one prompt or text")
    return filled


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RelexError(f"cannot read {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RelexError(f"{file} is not UTF-8 (byte {error.start}); save it as UTF-8") from error


def _is_json(file: Path, content: str) -> bool:
    suffix = file.suffix.lower()
    return suffix in JSON or (suffix not in NOT_JSON and content.lstrip().startswith("{"))


def _row(place: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise RelexError(
            f"{place}: broken JSON ({error.msg} at column {error.colno}); each line must be one "
            "JSON object"
        ) from error
    if not isinstance(row, dict):
        raise RelexError(f"{place}: holds {type(row).__name__}; each line must be one JSON object")
    return row


def _filled(place: str, key: str, value: object) -> str:
    if not isinstance(value, str):
        raise RelexError(f"{place}: `{key}` is {type(value).__name__}; make it a string")
    if not value.strip():
        raise RelexError(f"{place}: `{key}` is empty; fill it or remove the line")
    return value


def _prompt(place: str, value: object) -> str | Messages:
    """Return a prompt that is not empty: a string, or messages that end with a turn to answer."""
    if not isinstance(value, list):
        return _filled(place, "prompt", value)
    if not value:
        raise RelexError(f"{place}: the list of messages is empty; fill it or remove the line")
    messages = []
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise RelexError(f"{place}: every message needs `role` and `content`")
        content = _filled(place, "content", message.get("content"))
        messages.append({"role": message["role"], "content": content})
    if messages[-1]["role"] == "assistant":
        raise RelexError(
            f"{place}: the last message is the assistant's; end with the turn to be answered"
        )
    return tuple(messages)
