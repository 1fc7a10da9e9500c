"""Only what the assistant says counts, with a chat template and without, and losses are those of a plain loop."""

import pytest
import torch

from monadnock import MonadnockError, load
from monadnock.training.tokens import IGNORED, answer_loss, collate, encode
from tests.tiny import tiny_model
from tests.words import word_tokenizer

TALK = [
    {"role": "user", "content": "w1 w2"},
    {"role": "assistant", "content": "w3"},
    {"role": "user", "content": "w4"},
    {"role": "assistant", "content": "w5 w6"},
]
TEMPLATE = (
    "<s> {% for m in messages %}{{ 'w90 ' if m.role == 'user' else 'w91 ' }}{{ m.content }} </s> {% endfor %}"
    "{% if add_generation_prompt %}w91 {% endif %}"
)


def shown(tokenizer, encoded):
    """Return the words that count."""
    return [tokenizer.convert_ids_to_tokens(label) for label in encoded["labels"] if label != IGNORED]


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_answers_and_the_ends_of_their_turns_count(template):
    tokenizer = word_tokenizer()
    tokenizer.chat_template = template
    found = encode(tokenizer, TALK, 100)
    assert shown(tokenizer, found) == ["w3", "</s>", "w5", "w6", "</s>"]
    assert found["input_ids"][0] == tokenizer.bos_token_id and found["input_ids"].count(tokenizer.bos_token_id) == 1
    assert all(label in (IGNORED, token) for token, label in zip(*found.values(), strict=True))


@pytest.mark.real
@pytest.mark.parametrize("answer", ["\n\nplain", "    return 1", "\n", " ", "\tx", "plain"])
def test_an_answer_that_begins_with_blanks_counts_whole(answer):
    tokenizer = load("smollm2").tokenizer
    talk = [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": answer}]
    found = encode(tokenizer, talk, 100)
    assert tokenizer.decode(found["input_ids"]) == tokenizer.apply_chat_template(talk, tokenize=False)
    counted = tokenizer.decode([label for label in found["labels"] if label != IGNORED])
    assert counted.endswith(answer + "<|im_end|>\n") and len(counted) - len(answer) < 14


def test_what_is_cut_off_does_not_count_and_without_answer_nothing_is_left():
    tokenizer = word_tokenizer()
    whole = encode(tokenizer, TALK, 100)
    first = next(place for place, label in enumerate(whole["labels"]) if label != IGNORED)
    assert encode(tokenizer, TALK, first) is None
    assert shown(tokenizer, encode(tokenizer, TALK, first + 1)) == ["w3"]


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ raise_exception('no system') }}", "refuses a conversation"),
        ("w{{ messages | length }} {% for m in messages %}{{ m.content }} {% endfor %}", "one after another"),
    ],
)
def test_templates_that_do_not_fit_are_told(template, told):
    tokenizer = word_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(MonadnockError, match=told):
        encode(tokenizer, TALK, 100)


def test_loss_is_the_mean_over_answers_and_padding_changes_nothing():
    model, generator = tiny_model("llama"), torch.Generator().manual_seed(0)
    examples = []
    for size in (7, 12, 9):
        ids = torch.randint(3, 100, (size,), generator=generator).tolist()
        examples.append({"input_ids": ids, "labels": [IGNORED] * 4 + ids[4:]})
    with torch.no_grad():
        losses = [
            torch.nn.functional.cross_entropy(model(torch.tensor([each["input_ids"]])).logits[0, 3:-1], torch.tensor(each["input_ids"][4:]), reduction="none")  # noqa: E501
            for each in examples
        ]  # fmt: skip
    expected = float(torch.cat(losses).mean())
    assert answer_loss(model, [collate(examples)]) == pytest.approx(expected, rel=1e-5)
    assert answer_loss(model, [collate([each]) for each in examples]) == pytest.approx(expected, rel=1e-5)
