"""Texts as token ids: the context, and the response whose tokens are compared.

How a prompt is written down:

- chat messages go through the tokenizer's chat template, which must exist;
- a plain prompt is one user turn where the tokenizer has a chat template (and ``chat_template`` is
  not False), else it is tokenised as it is;
- a response follows its prompt as it is, without an end mark, and is tokenised on its own;
- of a text without a prompt the first token, the tokenizer's start token where it adds one, is the
  context and all others are the response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relex_merge.errors import RelexError
from relex_merge.evaluation.text import Messages, Text

if TYPE_CHECKING:
    from relex_merge.checkpoints.locate import Snapshot

UNLIMITED = 10**9  # tokenizers without a limit name a larger number


@dataclass(frozen=True)
class Item:
    """Token ids of one context and one response.

    prompt: at least one id. response: ids, empty until it is sampled. cluster: the number of the
    prompt, which all responses to it share. place: where the user wrote it, for messages.
    """

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    cluster: int
    place: str

    def answered(self, response: Sequence[int]) -> Item:
        """Return the same prompt with another response."""
        return replace(self, response=tuple(response))


def load_tokenizer(folder: Path, *, name: str | None = None) -> Any:
    """Load the tokenizer of a model folder.

    Args:
        folder: holds the tokenizer's files.
        name: what messages call the model; the folder when None.

    Raises:
        RelexError: the folder holds no tokenizer, or one that cannot be loaded.
    """
    from transformers import AutoTokenizer

    name = name or str(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise RelexError(f"cannot load a tokenizer from {name}: {error}") from error
    # Without files transformers 5 makes an empty tokenizer of the model's kind.
    files = {"tokenizer.json", "tekken.json", *tokenizer.vocab_files_names.values()} - {
        "tokenizer_config.json"
    }
    if not any((Path(folder) / file).is_file() for file in files):
        raise RelexError(
            f"{name} has no tokenizer; copy tokenizer.json and tokenizer_config.json from the "
            "base model into the folder"
        )
    return tokenizer


def first_tokenizer(places: Sequence[Snapshot]) -> Any:
    """Load the tokenizer of the first model that has one.

    Args:
        places: models on this disk, the best first.

    Raises:
        RelexError: none of them has a tokenizer; the message is about the first.
    """
    first: RelexError | None = None
    for place in places:
        try:
            return load_tokenizer(place.folder, name=place.reference)
        except RelexError as error:
            first = first or error
    raise first or RelexError("no model to take a tokenizer from")


def longest(model: Any, tokenizer: Any) -> int | None:
    """Return the most tokens that model and tokenizer take, None where neither says.

    Args:
        model: a transformers model; its configuration is read.
        tokenizer: its tokenizer; read is ``model_max_length``.
    """
    return longest_by(model.config, tokenizer)


def longest_by(config: Any, tokenizer: Any) -> int | None:
    """Return what :func:`longest` does of a model that is not loaded.

    Args:
        config: the model's transformers configuration; read is ``max_position_embeddings``.
        tokenizer: its tokenizer; read is ``model_max_length``.
    """
    text_config = config.get_text_config()
    limits = [getattr(text_config, "max_position_embeddings", None), tokenizer.model_max_length]
    known = [limit for limit in limits if limit is not None and limit < UNLIMITED]
    return min(known, default=None)


def tokenise(
    texts: Sequence[Text], tokenizer: Any, *, limit: int | None, chat_template: bool = True
) -> list[Item]:
    """Turn texts into token ids, each text a cluster of its own.

    Args:
        texts: what :mod:`relex_merge.evaluation.text` read.
        tokenizer: of the last observed checkpoint; used for all models.
        limit: the most tokens of prompt and response together (:func:`longest`).
        chat_template: False takes plain prompts as they are, template or not.

    Raises:
        RelexError: naming file and line, when a text gives no tokens to compare, is longer than
            ``limit``, or is a chat that the tokenizer has no (fitting) template for.
    """
    items = []
    for number, text in enumerate(texts):
        item = replace(_item(text, tokenizer, chat_template), cluster=number)
        check_length(item, 0, limit)
        items.append(item)
    return items


def start_items(tokenizer: Any, count: int) -> list[Item]:
    """Return ``count`` items whose whole context is the start token, each its own cluster.

    The start token is the tokenizer's BOS, else its EOS, as in lm-evaluation-harness. Samples from
    the model's own start are independent of each other, so each is a unit of its own.

    Raises:
        RelexError: the tokenizer has neither.
    """
    start = tokenizer.bos_token_id
    if start is None:
        start = tokenizer.eos_token_id
    if start is None:
        raise RelexError(
            "the tokenizer has neither a start nor an end token to begin a text with; give "
            "prompts (--prompts FILE) or text (--text FILE)"
        )
    return [Item((start,), (), number, "start token") for number in range(count)]


def check_length(item: Item, extra: int, limit: int | None) -> None:
    """Check that an item fits the model with ``extra`` tokens still to come.

    Raises:
        RelexError: naming file and line, when it does not.
    """
    length = len(item.prompt) + len(item.response) + extra
    if limit is None or length <= limit:
        return
    answer = f" with {extra} to be sampled" if extra else ""
    remedy = "shorten it, or sample fewer tokens" if extra else "shorten it"
    raise RelexError(f"{item.place}: {length} tokens{answer}; the model takes {limit}: {remedy}")


def _item(text: Text, tokenizer: Any, chat_template: bool) -> Item:
    if text.prompt is None:
        ids = tokenizer(text.response)["input_ids"]
        if len(ids) < 2:
            raise RelexError(f"{text.place}: the text gives {len(ids)} tokens; it needs two")
        return Item(tuple(ids[:1]), tuple(ids[1:]), 0, text.place)
    prompt = _prompt_ids(text.prompt, tokenizer, chat_template, text.place)
    if not prompt:
        raise RelexError(f"{text.place}: the tokenizer makes no token of the prompt")
    if text.response is None:
        return Item(tuple(prompt), (), 0, text.place)
    response = tokenizer(text.response, add_special_tokens=False)["input_ids"]
    if not response:
        raise RelexError(f"{text.place}: the tokenizer makes no token of the response")
    return Item(tuple(prompt), tuple(response), 0, text.place)


def _prompt_ids(
    prompt: str | Messages, tokenizer: Any, chat_template: bool, place: str
) -> list[int]:
    has_template = tokenizer.chat_template is not None
    if isinstance(prompt, str):
        if not (has_template and chat_template):
            return list(tokenizer(prompt)["input_ids"])
        prompt = ({"role": "user", "content": prompt},)
    if not has_template:
        raise RelexError(
            f"{place}: chat messages, but the tokenizer has no chat template; give `prompt` instead"
        )
    return list(tokenizer(_rendered(prompt, tokenizer, place), add_special_tokens=False).input_ids)


def _rendered(messages: Messages, tokenizer: Any, place: str) -> str:
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True
        )
    except TemplateError as error:
        raise RelexError(f"{place}: the chat template refuses these messages: {error}") from error
    return str(text)
