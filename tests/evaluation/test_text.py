"""The user's prompts and texts: what is accepted, and what each fault is called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from relex_merge.errors import RelexError
from relex_merge.evaluation.text import Text, read_prompts, read_text


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_json_lines_of_prompts_and_messages(tmp_path: Path) -> None:
    file = _write(
        tmp_path / "p.jsonl",
        '{"prompt": "1+1=", "answer": "2"}\n\n'
        '{"messages": [{"role": "user", "content": "hi"}]}\r\n'
        '{"prompt": [{"role": "user", "content": "trl"}]}\n',
    )
    assert read_prompts(file) == [
        Text("1+1=", None, f"{file}:1"),
        Text(({"role": "user", "content": "hi"},), None, f"{file}:3"),
        Text(({"role": "user", "content": "trl"},), None, f"{file}:4"),
    ]


def test_plain_lines_are_prompts_word_for_word(tmp_path: Path) -> None:
    file = _write(tmp_path / "p.txt", '{"a": 1}\n\n  two words \n')
    assert [text.prompt for text in read_prompts(file)] == ['{"a": 1}', "  two words "]


def test_a_file_of_another_name_is_known_by_its_first_character(tmp_path: Path) -> None:
    as_json = _write(tmp_path / "prompts", '{"prompt": "x"}')
    plain = _write(tmp_path / "others", "x")
    assert [text.prompt for text in read_prompts(as_json) + read_prompts(plain)] == ["x", "x"]


def test_a_byte_order_mark_and_line_separators_inside_a_string_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_bytes('\ufeff{"prompt": "a\u2028b"}\n'.encode())
    assert [text.prompt for text in read_prompts(file)] == ["a\u2028b"]


def test_finished_text(tmp_path: Path) -> None:
    file = _write(tmp_path / "t.jsonl", '{"text": "abc"}\n{"prompt": "q", "response": "r"}\n')
    assert read_text(file) == [Text(None, "abc", f"{file}:1"), Text("q", "r", f"{file}:2")]


@pytest.mark.parametrize(
    ("read", "content", "line", "says"),
    [
        (read_prompts, " \n", "", "is empty"),
        (read_prompts, '{"prompt": "a"}\n{"prompt"', ":2", "broken JSON"),
        (read_prompts, '{"prompt": "a"}\n["b"]', ":2", "holds list"),
        (read_prompts, '{"question": "a"}', ":1", "neither `prompt` nor `messages`"),
        (read_prompts, '{"prompt": " "}', ":1", "`prompt` is empty"),
        (read_prompts, '{"prompt": 3}', ":1", "make it a string"),
        (read_prompts, '{"messages": []}', ":1", "list of messages is empty"),
        (read_prompts, '{"messages": ["a"]}', ":1", "needs `role` and `content`"),
        (read_prompts, '{"messages": [{"role": "user", "content": ""}]}', ":1", "`content`"),
        (
            read_prompts,
            '{"messages": [{"role": "assistant", "content": "a"}]}',
            ":1",
            "last message is the assistant's",
        ),
        (read_text, "", "", "is empty"),
        (read_text, '{"prompt": "a"}', ":1", "needs `text`, or `prompt` and `response`"),
        (read_text, '{"text": ""}', ":1", "`text` is empty"),
        (read_text, '{"prompt": "a", "response": ""}', ":1", "`response` is empty"),
    ],
)
def test_faults_name_file_and_line(
    tmp_path: Path, read: Callable[[Path], list[Text]], content: str, line: str, says: str
) -> None:
    file = _write(tmp_path / "in.jsonl", content)
    with pytest.raises(RelexError) as error:
        read(file)
    assert f"{file}{line}" in str(error.value)
    assert says in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RelexError, match=r"cannot read .*absent\.jsonl: No such file"):
        read_prompts(tmp_path / "absent.jsonl")
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"caf\xe9\n")
    with pytest.raises(RelexError, match="not UTF-8"):
        read_prompts(latin)
