"""Greedy text is what one whole pass after the other gives."""

import torch

from monadnock.evaluation.generation import generate, same_start
from tests.evaluation.conftest import TOKENIZER


def test_greedy_text_by_hand(adapter):
    prompt = "w1 w2 w3"
    ids = torch.tensor([1, *TOKENIZER(prompt, add_special_tokens=False)["input_ids"]])
    expected = []
    for _ in range(6):
        expected.append(int(adapter.forward(ids)[-1].argmax()))
        ids = torch.cat([ids, torch.tensor(expected[-1:])])
        if expected[-1] == adapter.model.generation_config.eos_token_id:
            break
    assert generate(adapter, [prompt], tokens=6) == [expected]


def test_bos_and_the_end_of_the_context(llama, monkeypatch):
    given = []
    monkeypatch.setattr(
        llama.model, "generate", lambda **kw: given.append(kw) or torch.cat([kw["input_ids"], torch.tensor([[5]])], 1)
    )
    assert generate(llama, ["w1", "w2"], bos=False) == [[5], [5]]
    assert [kw["input_ids"].tolist() for kw in given] == [[[4]], [[5]]]
    given.clear()
    generate(llama, ["w1 " * 254], tokens=10)
    assert given[0]["max_new_tokens"] == 1
    assert generate(llama, ["w1 " * 300], tokens=10) == [[]]


def test_same_start():
    assert [same_start(*pair) for pair in [([], [1]), ([1, 2], [1, 2, 3]), ([1, 2], [1, 3]), ([2], [1])]] == [
        0,
        2,
        1,
        0,
    ]
