"""Text as memory-mapped tokens: nothing lost, nothing twice, written once, and refused where it is too little."""

import numpy as np
import pytest
import torch

from monadnock import MonadnockError
from monadnock.pretraining.corpus import Corpus, write_tokens
from monadnock.pretraining.tokenizers import trained_tokenizer, word_tokenizer
from tests.words import random_words

TEXTS = [" ".join(random_words(300, num_words=30)), "Ünïcode lines\nand more.\n" * 20]


def test_windows_hold_all_tokens_in_their_order_with_an_end_behind_each_text(tmp_path):
    tokenizer = trained_tokenizer(TEXTS, 400)
    place = write_tokens(TEXTS, tokenizer, tmp_path, {"a": 1})
    corpus = Corpus(place, 8)
    whole = torch.cat([corpus[number]["input_ids"] for number in range(len(corpus))]).tolist()
    wanted = []
    for text in TEXTS:
        wanted += [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert whole == wanted[: len(whole)] and len(wanted) - len(whole) < 8
    assert tokenizer.decode(wanted[: wanted.index(1)]) == TEXTS[0]
    before = (place / "tokens.npy").stat().st_mtime_ns
    assert write_tokens(TEXTS, tokenizer, tmp_path, {"a": 1}) == place
    assert (place / "tokens.npy").stat().st_mtime_ns == before
    assert write_tokens(TEXTS, tokenizer, tmp_path, {"a": 2}) != place
    assert isinstance(corpus._tokens, np.memmap)


def test_parts_are_apart_and_bos_stands_in_front_without_a_loss_behind_it(tmp_path):
    tokenizer = word_tokenizer(60)
    text = " ".join(f"t{number % 60}" for number in range(400))
    place = write_tokens([text], tokenizer, tmp_path, {})
    train, held = Corpus(place, 10, part=(0, 0.75), bos=0), Corpus(place, 10, part=(0.75, 1), bos=0)
    assert len(train) == 300 // 9 and len(held) == 100 // 9
    row = train[1]
    assert row["input_ids"].tolist() == [0, *(1 + number % 60 for number in range(9, 18))]
    assert row["labels"].tolist() == [-100, -100, *row["input_ids"][2:].tolist()]
    assert held[0]["input_ids"][1] == 1 + 300 % 60
    plain = Corpus(place, 10)[1]
    assert plain["labels"].tolist() == [-100, *plain["input_ids"][1:].tolist()]
    with pytest.raises(IndexError):
        train[len(train)]


def test_what_is_too_little_or_broken_is_told(tmp_path):
    place = write_tokens(["t1 t2"], word_tokenizer(5), tmp_path, {})
    with pytest.raises(MonadnockError, match="The text has 2 of 2 tokens, too few for a window of 8; give more"):
        Corpus(place, 8)
    (place / "tokens.json").write_text("{")
    with pytest.raises(MonadnockError, match="holds no tokens that can be read"):
        Corpus(place, 2)


def test_a_file_that_was_cut_short_is_told(tmp_path):
    place = write_tokens(["t1 t2 t3 t4"], word_tokenizer(5), tmp_path, {})
    (place / "tokens.npy").write_bytes(b"12")
    with pytest.raises(MonadnockError, match="holds no tokens that can be read"):
        Corpus(place, 2)
