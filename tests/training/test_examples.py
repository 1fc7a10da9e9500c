"""Instruction data in each of its forms gives the same conversations, and what is in none of them is told."""

import json

import pytest

from monadnock import MonadnockError
from monadnock.training import read_examples

ALPACA = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
MESSAGES = {"messages": [{"role": "user", "content": "Add.\n\n1 and 2"}, {"role": "assistant", "content": "3"}]}


@pytest.mark.parametrize("example", [ALPACA, MESSAGES, ALPACA | {"input": None, "instruction": "Add.\n\n1 and 2"}])
@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_forms_give_the_same_conversations(tmp_path, example, form):
    path = tmp_path / f"data.{form}"
    rows = [example, MESSAGES]
    path.write_text(json.dumps(rows) if form == "json" else "\n".join(map(json.dumps, rows)) + "\n\n")
    found = read_examples(path)
    assert found.conversations == (MESSAGES["messages"], MESSAGES["messages"])
    assert found.label.startswith(f"data.{form}, 2 examples, ")


def test_a_system_message_comes_first(tmp_path):
    path = tmp_path / "data.json"
    path.write_text(json.dumps([ALPACA | {"system": "Be short."}, ALPACA]))
    assert read_examples(path).conversations[0][0] == {"role": "system", "content": "Be short."}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has 0 examples"),
        (json.dumps([ALPACA]), "has 1 examples; one is held back"),
        (json.dumps(ALPACA) + "\n{oops", "line 2 of .* is no JSON"),
        ("3", "holds no list"),
        (json.dumps([ALPACA, 3]), "example 2 of data.json has int"),
        (json.dumps([ALPACA, {"question": "?"}]), "has question; it takes instruction, output"),
        (json.dumps([ALPACA, ALPACA | {"output": " "}]), "empty output"),
        (json.dumps([ALPACA, {}]), "has nothing; it takes instruction, output"),
        (
            json.dumps([ALPACA, {"messages": [*MESSAGES["messages"][:1], {"role": "assistant", "content": ""}]}]),
            "empty answer",
        ),
        (json.dumps([ALPACA, ALPACA | {"instruction": 4}]), "it takes instruction, output"),
        (json.dumps([ALPACA, {"instruction": "", "output": "x"}]), "empty instruction"),
        (json.dumps([ALPACA, {"messages": []}]), "do not end with the"),
        (json.dumps([ALPACA, {"messages": MESSAGES["messages"][:1]}]), "do not end with the"),
        (json.dumps([ALPACA, {"messages": [{"role": "robot", "content": "x"}]}]), "role"),
    ],
)
def test_what_is_in_no_form_is_told(tmp_path, text, told):
    path = tmp_path / "data.json"
    path.write_text(text)
    with pytest.raises(MonadnockError, match=told):
        read_examples(path)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(MonadnockError, match="cannot be read"):
        read_examples(tmp_path / "nothing.jsonl")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(MonadnockError, match="is not UTF-8"):
        read_examples(tmp_path / "bytes.json")
