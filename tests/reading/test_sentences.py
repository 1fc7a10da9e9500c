"""Attention to the first token where a sentence ends: against a slow loop, planted falls, all kinds of tokenizers."""

import random

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from monadnock.data import ends_sentence
from monadnock.models import Adapter, Source
from monadnock.reading import sentences
from monadnock.reading.sentences import LENGTH, QUERIES, first_sentences, sentence_effect
from monadnock.reading.states import texts_of
from tests.tiny import tiny_model

BOS, STOP, WORDS = 1, 3, 60


def spaced(kind: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer whose words begin with a blank; one of the SentencePiece kind drops it from a lone token."""
    mark = {"bytes": "Ġ", "pieces": "▁"}[kind]
    names = [a + b + c for a in "bcdfgk" for b in "aeiou" for c in "lmnrst"][:WORDS]
    ids = {"<unk>": 0, "<s>": BOS, "</s>": 2, ".": STOP} | {mark + name: 4 + i for i, name in enumerate(names)}
    tokenizer = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    if kind == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def words(count, seed=0):
    draw = random.Random(seed)
    return [draw.randrange(4, 4 + WORDS) for _ in range(count)]


def window(lengths, *, bos=True, seed=0):
    """Return one window: a rest of a sentence, then sentences of so many tokens, the stop counted."""
    ids = [*words(2, seed), STOP]
    for place, length in enumerate(lengths):
        ids += [*words(length - 1, seed + place + 1), STOP]
    return ([BOS] if bos else []) + ids


def padded(windows):
    size = max(map(len, windows))
    return torch.tensor([ids + words(size - len(ids), 99) for ids in windows])


@pytest.fixture(scope="module")
def adapter():
    return Adapter(tiny_model("gpt2"), spaced("bytes"), Source("gpt2", "object"))


# where sentences end


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_tokens_in_place_make_up_the_text(kind):
    tokenizer = spaced(kind)
    text = " bal bam. ban bar. bas"
    ids = tokenizer.encode(text, add_special_tokens=False)
    found = texts_of(tokenizer, ids)
    assert len(found) == len(ids) == 7 and "".join(found).strip() == text.strip()
    assert ends_sentence(found) == [False, False, True, False, False, True, False]
    assert ends_sentence([tokenizer.decode([each]) for each in ids])[2] == (kind == "bytes")  # alone they do not tell
    assert "".join(texts_of(tokenizer, [BOS, *ids])).startswith("<s>")
    assert texts_of(tokenizer, []) == []


def test_bytes_of_one_sign_do_not_move_the_others():
    """A sign that two tokens make together is in neither alone; what stands behind it keeps its place."""

    class Parts:
        def decode(self, ids):
            return b"".join(
                {0: b"a.", 1: "é".encode()[:1], 2: "é".encode()[1:], 3: b" b"}[each] for each in ids
            ).decode(errors="replace")

    found = texts_of(Parts(), [0, 3, 1, 2, 3, 0, 3])
    assert len(found) == 7 and found[4] == " b" and found[0] == "a."
    assert ends_sentence(found) == [True, False, False, False, False, True, False]


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_texts_begin_with_a_sentence(kind, bos):
    adapter = Adapter(tiny_model("gpt2"), spaced(kind), Source("gpt2", "object"))
    ids = torch.tensor([window([9, 12, 8, 30, 10, 20, 25, 22, 14], bos=bos)])
    texts, ends = first_sentences(adapter, ids, bos)
    assert texts.shape[1] == LENGTH
    for text, places in zip(texts.tolist(), ends, strict=True):
        assert (text[0] == BOS) == bos and BOS not in text[1:]
        assert places == [place for place, each in enumerate(text) if each == STOP]
    body = ids[0, int(bos) :].tolist()
    starts = [
        next(at for at in range(len(body)) if body[at : at + 20] == text[bos : bos + 20]) for text in texts.tolist()
    ]
    assert starts == [3, 3 + 9 + 12 + 8 + 30 + 10] and all(body[start - 1] == STOP for start in starts)


def test_texts_that_are_too_short_do_not_count(adapter):
    texts, ends = first_sentences(adapter, torch.tensor([window([9, 12])]), True)
    assert texts.shape == (0, LENGTH) and ends == []
    assert sentence_effect(adapter, torch.tensor([window([9, 12])]), True) == []


def test_no_more_texts_than_asked(adapter, monkeypatch):
    monkeypatch.setattr(sentences, "MOST", 3)
    texts, ends = first_sentences(adapter, torch.tensor([window([10] * 100)]), True)
    assert len(texts) == len(ends) == 3


# the numbers


def texts_with(first, *, bos=True, count=8):
    """Return windows with one text each; the first sentences end at different places."""
    return padded([window([first(i), 70], bos=bos, seed=100 * i) for i in range(count)])


@pytest.fixture
def masses(monkeypatch):
    """Return a function that lets attention to the first token be what a function of ids and positions says."""

    def plant(value):
        def first(adapter, ids):
            found = torch.tensor([value(ids.tolist(), place) for place in range(len(ids))])
            return found.expand(adapter.num_layers, adapter.num_heads, len(ids)).clone()

        monkeypatch.setattr(sentences, "first_attention", first)

    return plant


def test_attention_that_falls_at_the_end_of_the_first_sentence_is_found(adapter, masses):
    masses(lambda ids, place: 0.8 if STOP not in ids[:place] else 0.3)
    rows = [row for row in sentence_effect(adapter, texts_with(lambda i: 8 + 6 * i), True) if row["sentence"] == 1]
    assert [row["layer"] for row in rows] == [0, 1, 2, None]
    for row in rows:
        assert row["before"] == pytest.approx(0.8) and row["after"] == pytest.approx(0.3)
        assert row["fall"] == pytest.approx(0.5) and row["effect_error"] == pytest.approx(0, abs=1e-6)
        assert row["effect"] == pytest.approx(0.5) and row["control_fall"] == pytest.approx(0, abs=1e-6)
        assert row["num_texts"] > 4
    assert [row["num_heads"] for row in rows] == [4, 4, 4, 12]


def test_attention_that_falls_with_the_position_only_has_no_effect(adapter, masses):
    masses(lambda ids, place: 1 / (place + 1))
    rows = sentence_effect(adapter, texts_with(lambda i: 8 + 6 * i), True)
    assert rows
    for row in rows:
        assert row["fall"] > 0.001 and row["control_fall"] == pytest.approx(row["fall"])
        assert row["effect"] == pytest.approx(0, abs=1e-7)


def test_other_sentences_have_their_own_rows(adapter, masses):
    """A fall at the second end only."""
    masses(lambda ids, place: 0.9 if ids[:place].count(STOP) < 2 else 0.4)
    windows = padded([window([8 + 2 * i, 10 + 3 * i, 70], seed=100 * i) for i in range(6)])
    found = {row["sentence"]: row for row in sentence_effect(adapter, windows, True) if row["layer"] == 1}
    assert found[2]["fall"] == pytest.approx(0.5)
    assert found[1]["fall"] == pytest.approx(0)


@pytest.mark.parametrize("bos", [True, False])
def test_the_first_token_is_no_query(adapter, masses, bos):
    """It sees nothing but itself: a first sentence of five tokens has three others in front of its end."""
    masses(lambda ids, place: 1.0 if place == 0 else 0.25)
    firsts = [*(QUERIES + i % 3 for i in range(9)), 40, 44]
    windows = padded([window([first, 10, 70], bos=bos, seed=100 * i) for i, first in enumerate(firsts)])
    rows = sentence_effect(adapter, windows, bos)
    assert {row["sentence"] for row in rows} >= {1}
    for row in rows:
        assert row["before"] == pytest.approx(0.25) and row["fall"] == pytest.approx(0)


def test_an_end_that_another_follows_at_once_does_not_count(adapter, masses):
    """What stands behind an end is the next sentence and no other."""
    masses(lambda ids, place: 0.9 if ids[:place].count(STOP) < 2 else 0.4)
    windows = padded([window([10 + 5 * i, 3, 70], seed=100 * i) for i in range(6)])
    found = {row["sentence"] for row in sentence_effect(adapter, windows, True)}
    assert 1 not in found and 2 not in found


def slow(adapter, texts, ends):
    """Return (before, after, control) of the first sentence by a loop over texts, heads and queries, by layer."""
    first = [sentences.first_attention(adapter, ids) for ids in texts]
    found = []
    for layer in range(adapter.num_layers):

        def fall(text, end, layer=layer):
            heads = range(adapter.num_heads)
            before = [float(first[text][layer, head, i]) for head in heads for i in range(end - 4, end)]
            after = [float(first[text][layer, head, i]) for head in heads for i in range(end + 1, end + 5)]
            return sum(before) / len(before), sum(after) / len(after)

        rows = []
        for text, places in enumerate(ends):
            if not places or places[0] < 5 or (places[1:] or [LENGTH - 1])[0] - places[0] < 4:
                continue
            quiet = [other for other, theirs in enumerate(ends) if all(abs(p - places[0]) > 4 for p in theirs)]
            if quiet:
                control = [fall(other, places[0]) for other in quiet]
                rows.append((*fall(text, places[0]), sum(a - b for a, b in control) / len(control)))
        found.append(torch.tensor(rows, dtype=torch.float64))
    return found


@pytest.mark.parametrize("bos", [True, False])
def test_numbers_are_those_of_a_slow_loop(adapter, bos):
    windows = padded([window([4 + 7 * i % 40, 6 + i, 12, 60, 60], bos=bos, seed=100 * i) for i in range(7)])
    calls = []
    rows = sentence_effect(adapter, windows, bos, lambda: calls.append(0))
    texts, ends = first_sentences(adapter, windows, bos)
    assert len(calls) == len(texts) > 7
    found = [row for row in rows if row["sentence"] == 1 and row["layer"] is not None]
    for row, cases in zip(found, slow(adapter, texts, ends), strict=True):
        before, after, control = cases.T
        assert row["num_texts"] == len(cases) > 3
        expected = {
            "before": before.mean(),
            "after": after.mean(),
            "fall": (before - after).mean(),
            "control_fall": control.mean(),
            "effect": (before - after - control).mean(),
        }
        assert {name: row[name] for name in expected} == pytest.approx(
            {k: float(v) for k, v in expected.items()}, abs=1e-6
        )
    (whole,) = (row for row in rows if row["sentence"] == 1 and row["layer"] is None)
    assert whole["fall"] == pytest.approx(sum(row["fall"] for row in found) / 3, abs=1e-6)
    assert whole["effect"] == pytest.approx(sum(row["effect"] for row in found) / 3, abs=1e-6)


# a model that does it


def highlighter(by_sentence: bool) -> Adapter:
    """Return a model whose layer 1 looks at the first token until a stop is seen, or at everything alike.

    Keys know the first token (BOS) and, stronger, a stop: it takes the attention over as soon as there is one.
    """
    adapter = Adapter(tiny_model("gpt2"), spaced("bytes"), Source("gpt2", "object"))
    with torch.no_grad():
        decoder = adapter.decoder
        decoder.get_submodule("wpe").weight.zero_()
        embedding = adapter.model.get_input_embeddings().weight
        embedding[:, :3] = torch.tensor([0.0, 0.0, 3.0])
        embedding[BOS, 0], embedding[STOP, 1] = 3.0, 3.0
        for layer in range(3):
            for role in ("o", "down"):
                adapter.weight(layer, role).read().zero_()
                adapter.bias(layer, role).read().zero_()
            norm = adapter.norm(layer, "attn_input")
            norm.weight.fill_(1.0)
            norm.bias.zero_()
            for role in ("q", "k"):
                adapter.weight(layer, role).read().zero_()
                adapter.bias(layer, role).read().zero_()
        if by_sentence:
            adapter.weight(1, "q").read()[::8, 2] = 10.0
            adapter.weight(1, "k").read()[::8, 0] = 3.0
            adapter.weight(1, "k").read()[::8, 1] = 12.0
    return adapter


def test_a_model_whose_heads_turn_from_the_first_token_at_the_end_of_a_sentence():
    rows = sentence_effect(highlighter(True), texts_with(lambda i: 8 + 6 * i), True)
    found = {row["layer"]: row for row in rows if row["sentence"] == 1}
    assert found[1]["before"] > 0.6 and found[1]["after"] < 0.05  # the query at the stop sees the stop
    assert found[1]["effect"] > 0.5 > 10 * abs(found[1]["control_fall"])
    for layer in (0, 2):  # every key alike: 1 / (position + 1)
        assert found[layer]["fall"] > 0.001 and found[layer]["effect"] == pytest.approx(0, abs=1e-6)
    assert found[None]["effect"] == pytest.approx(found[1]["effect"] / 3, abs=1e-3)


def test_a_model_whose_heads_know_positions_only():
    rows = sentence_effect(highlighter(False), texts_with(lambda i: 8 + 6 * i), True)
    assert rows and all(row["effect"] == pytest.approx(0, abs=1e-6) for row in rows)
