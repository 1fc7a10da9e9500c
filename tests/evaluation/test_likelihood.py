"""Perplexity, divergence and agreement equal what plain transformers code gives."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monadnock.data import token_windows
from monadnock.evaluation.likelihood import Likelihood, last_output, perplexity, score
from monadnock.interventions import prefix_tokens, zero_rows
from tests.evaluation.conftest import TOKENIZER, make


def logits_of(adapter, ids):
    with torch.inference_mode():
        return adapter.model(input_ids=ids[None], use_cache=False).logits[0].double()


def directly(adapter, windows):
    """Sum the loss that the model itself gives for labels, window by window."""
    nats = tokens = 0
    for ids in windows.ids:
        with torch.inference_mode():
            loss = adapter.model(input_ids=ids[None], labels=ids[None], use_cache=False).loss
        nats, tokens = nats + float(loss) * (len(ids) - 1), tokens + len(ids) - 1
    return math.exp(nats / tokens)


def test_perplexity_is_that_of_the_models_own_loss(adapter, windows):
    assert perplexity(adapter, windows) == pytest.approx(directly(adapter, windows), rel=1e-5)


@given(length=st.integers(3, 30), data=st.data(), bos=st.booleans())
def test_a_stride_scores_each_token_once_as_in_transformers_guide(llama, text, length, data, bos):
    stride = data.draw(st.integers(1, length - bos))
    windows = token_windows(TOKENIZER, text=text, length=length, tokens=length * 6, bos=bos, stride=stride)
    nats = tokens = 0
    for number, ids in enumerate(windows.ids):
        labels = ids.clone()
        if number:
            labels[:-stride] = -100  # seen in the window before
        scored = int((labels[1:] != -100).sum())
        if not scored:
            continue
        with torch.inference_mode():
            loss = llama.model(input_ids=ids[None], labels=labels[None], use_cache=False).loss
        nats, tokens = nats + float(loss) * scored, tokens + scored
    assert perplexity(llama, windows) == pytest.approx(math.exp(nats / tokens), rel=1e-5)


def test_divergence_and_agreement_by_hand(adapter, windows):
    expert = None if adapter.num_experts is None else 0
    clean = [last_output(adapter, ids) for ids in windows.ids]
    expected = [logits_of(adapter, ids)[:-1] for ids in windows.ids]
    total = Likelihood()
    with zero_rows(adapter, 0, range(0, 48, 2), expert=expert):
        for window, ids in enumerate(windows.ids):
            score(adapter, windows, window, total, last_output(adapter, ids), clean[window])
        found = [logits_of(adapter, ids)[:-1] for ids in windows.ids]
    p, q = torch.cat(expected).log_softmax(1), torch.cat(found).log_softmax(1)
    assert total.tokens == len(p)
    assert total.kl == pytest.approx(float((p.exp() * (p - q)).sum(1).mean()), rel=1e-3, abs=1e-7)
    assert total.top1_agreement == pytest.approx(float((p.argmax(1) == q.argmax(1)).double().mean()), abs=1 / len(p))
    assert total.kl > 0


def test_the_clean_model_does_not_diverge_from_itself(llama, windows):
    total = Likelihood()
    output = last_output(llama, windows.ids[0])
    score(llama, windows, 0, total, output, output)
    assert (total.kl, total.top1_agreement) == (0, 1)


def test_logits_in_chunks_give_the_same(llama, windows, monkeypatch):
    whole = perplexity(llama, windows)
    monkeypatch.setattr("monadnock.evaluation.likelihood.CHUNK", 3 * 128)
    assert perplexity(llama, windows) == pytest.approx(whole, rel=1e-6)


def test_perplexity_behind_a_prefix(llama, windows):
    """Only the text's own tokens are scored, each given the prefix."""
    nats = tokens = 0
    for ids in windows.ids:
        logs = logits_of(llama, torch.cat([torch.tensor([2, 9]), ids]))[2:].log_softmax(1)
        nats -= float(logs[:-1].gather(1, ids[1:, None]).sum())
        tokens += len(ids) - 1
    with prefix_tokens(llama, [2, 9]):
        assert perplexity(llama, windows) == pytest.approx(math.exp(nats / tokens), rel=1e-5)


def test_a_broken_model_has_no_finite_perplexity(windows):
    adapter = make("llama")
    with torch.no_grad():
        adapter.model.lm_head.weight.fill_(math.nan)
    assert math.isnan(perplexity(adapter, windows))
    total, output = Likelihood(), last_output(adapter, windows.ids[0])
    score(adapter, windows, 0, total, output, output)
    assert math.isnan(total.top1_agreement) and math.isnan(total.kl)
    assert Likelihood(tokens=1, nats=1e6).perplexity == math.inf
