"""Texts become token ids by a documented rule; what does not fit is named by file and line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from relex_merge.errors import RelexError
from relex_merge.evaluation.text import Text
from relex_merge.evaluation.tokens import (
    check_length,
    load_tokenizer,
    longest,
    start_items,
    tokenise,
)
from tests.support.models import TEMPLATE, Series, make_config, write_tokenizer


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer without a chat template."""
    folder = tmp_path_factory.mktemp("plain")
    make_config().save_pretrained(folder)
    write_tokenizer(folder)
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same with one."""
    folder = tmp_path_factory.mktemp("chatty")
    make_config().save_pretrained(folder)
    write_tokenizer(folder, TEMPLATE)
    return load_tokenizer(folder)


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids)))


def test_plain_prompts_are_taken_as_they_are_without_a_template(plain: Any) -> None:
    (item,) = tokenise([Text("1+1=", None, "f:1")], plain, limit=None)
    assert _decode(plain, item.prompt) == "1+1="
    assert item.response == ()


def test_plain_prompts_are_a_user_turn_where_there_is_a_template(chatty: Any) -> None:
    texts = [Text("1+1=", None, "f:1"), Text(({"role": "user", "content": "1+1="},), None, "f:2")]
    turn, chat = tokenise(texts, chatty, limit=None)
    assert _decode(chatty, turn.prompt) == "<|user|>1+1="
    assert turn.prompt == chat.prompt
    assert (turn.cluster, chat.cluster) == (0, 1)
    (as_is,) = tokenise(texts[:1], chatty, limit=None, chat_template=False)
    assert _decode(chatty, as_is.prompt) == "1+1="


def test_of_a_text_the_first_token_is_context(plain: Any) -> None:
    (item,) = tokenise([Text(None, "abcd", "f:1")], plain, limit=4)
    assert _decode(plain, item.prompt) == "a"
    assert _decode(plain, item.response) == "bcd"


def test_a_response_follows_its_prompt(plain: Any) -> None:
    (item,) = tokenise([Text("ab", "cd", "f:1")], plain, limit=None)
    assert _decode(plain, item.prompt + item.response) == "abcd"


def test_start_items_hold_the_start_token_alone(plain: Any) -> None:
    items = start_items(plain, 3)
    assert [item.prompt for item in items] == [(plain.eos_token_id,)] * 3
    assert [item.cluster for item in items] == [0, 1, 2]


def test_the_limit_is_the_smaller_of_model_and_tokenizer(plain: Any) -> None:
    class Model:
        config = make_config(max_position_embeddings=64)

    assert longest(Model(), plain) == 64
    plain.model_max_length, before = 32, plain.model_max_length
    assert longest(Model(), plain) == 32
    plain.model_max_length = before


def test_what_is_too_long_is_named(plain: Any) -> None:
    with pytest.raises(RelexError, match=r"^f:7: 6 tokens; the model takes 5: shorten it$"):
        tokenise([Text("abc", "def", "f:7")], plain, limit=5)
    (item,) = tokenise([Text("abc", None, "f:7")], plain, limit=5)
    with pytest.raises(RelexError, match=r"f:7: 6 tokens with 3 to be sampled; .*sample fewer"):
        check_length(item, 3, 5)


def test_messages_need_a_template_that_takes_them(plain: Any, chatty: Any) -> None:
    chat = Text(({"role": "user", "content": "a"},), None, "f:3")
    with pytest.raises(RelexError, match="f:3: chat messages, but the tokenizer has no chat"):
        tokenise([chat], plain, limit=None)
    template, chatty.chat_template = chatty.chat_template, "{{ raise_exception('users only') }}"
    with pytest.raises(RelexError, match=r"f:3: the chat template refuses .*users only"):
        tokenise([chat], chatty, limit=None)
    chatty.chat_template = template


def test_texts_without_tokens_to_compare(plain: Any) -> None:
    with pytest.raises(RelexError, match="f:1: the text gives 1 tokens"):
        tokenise([Text(None, "a", "f:1")], plain, limit=None)


def test_a_folder_without_a_tokenizer(series: Series, tmp_path: Path) -> None:
    """Transformers would make an empty one of the configuration alone."""
    assert load_tokenizer(series.base) is not None
    with pytest.raises(RelexError, match=r"step 9 has no tokenizer; copy tokenizer\.json"):
        load_tokenizer(series.checkpoints[-1], name="step 9")
    with pytest.raises(RelexError, match="cannot load a tokenizer from nothing here"):
        load_tokenizer(tmp_path, name="nothing here")
