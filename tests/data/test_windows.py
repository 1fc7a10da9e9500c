"""Windows are cut from the text without overlap, the same ones for the same seed."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monadnock.data import Windows, token_windows
from monadnock.data.text import built_in_text
from monadnock.errors import MonadnockError
from tests.words import BOS_ID, FIRST_WORD_ID, word_tokenizer, write_words

NUM_WORDS = 600


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer(num_words=NUM_WORDS)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Return a text in which every word occurs once and in order, so that an id says where it stood."""
    return write_words(tmp_path_factory.mktemp("text"), (f"w{i}" for i in range(NUM_WORDS)))


def refusal(*args, **kwargs):
    with pytest.raises(MonadnockError) as caught:
        token_windows(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@given(
    length=st.integers(2, 100),
    extra=st.integers(0, 300),
    bos=st.booleans(),
    seed=st.integers(0, 9),
)
def test_windows_are_whole_stretches_of_the_text_without_overlap(tokenizer, text, length, extra, bos, seed):
    windows = token_windows(tokenizer, text=text, length=length, tokens=length + extra, bos=bos, seed=seed)
    body = length - bos
    count = min((length + extra) // length, NUM_WORDS // body)
    assert windows.ids.shape == (count, length)
    assert windows.ids.dtype == torch.int64
    assert (windows.bos, windows.source, windows.seed) == (bos, "words.txt", seed)
    if bos:
        assert (windows.ids[:, 0] == BOS_ID).all()
    words = windows.ids[:, int(bos) :]
    assert (words.diff(dim=1) == 1).all(), "a window is a stretch of the text"
    assert len(words.unique()) == count * body, "windows do not overlap"
    assert ((words[:, 0] - FIRST_WORD_ID) % body == 0).all()
    assert (words[:, 0].diff() > 0).all(), "they come in the order of the text"
    again = token_windows(tokenizer, text=text, length=length, tokens=length + extra, bos=bos, seed=seed)
    assert torch.equal(windows.ids, again.ids)
    assert windows.token_hash == again.token_hash


def test_another_seed_chooses_others_where_there_is_a_choice(tokenizer, text):
    chosen = {token_windows(tokenizer, text=text, length=20, tokens=60, seed=seed).token_hash for seed in range(8)}
    assert len(chosen) >= 7
    everything = {token_windows(tokenizer, text=text, length=20, tokens=6000, seed=s).token_hash for s in range(3)}
    assert len(everything) == 1


def test_the_chosen_windows_do_not_depend_on_torchs_global_seed(tokenizer, text):
    torch.manual_seed(1)
    first, before = token_windows(tokenizer, text=text, length=20, tokens=60), torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == before, "nor is torch's generator used up"
    assert token_windows(tokenizer, text=text, length=20, tokens=60).token_hash == first.token_hash


@given(st.integers(0, 2), st.integers(0, 4), st.integers(1, 2**40))
def test_the_hash_changes_with_any_id(row, column, change):
    windows = Windows(torch.arange(15).view(3, 5), False, "x", 0)
    other = windows.ids.clone()
    other[row, column] += change
    assert dataclasses.replace(windows, ids=other).token_hash != windows.token_hash


def test_the_hash_is_of_little_endian_int64_ids():
    windows = Windows(torch.tensor([[1, 2], [3, 4]]).T, False, "x", 0)
    # printf '\1\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\4\0\0\0\0\0\0\0' | sha256sum
    assert windows.token_hash == "cdb192d28cc214cc1e3bd9ea3425292b8db4f92312fc090e38df9528d4c44700"


def test_bos_is_put_in_front_by_default_if_there_is_one(text):
    assert token_windows(word_tokenizer(num_words=NUM_WORDS), text=text, length=8, tokens=8).bos
    without = word_tokenizer(bos=False, num_words=NUM_WORDS)
    windows = token_windows(without, text=text, length=8, tokens=8)
    assert not windows.bos
    assert (windows.ids >= FIRST_WORD_ID).all()
    assert "this tokenizer has none; use --no-bos" in refusal(without, text=text, length=8, tokens=8, bos=True)


@pytest.mark.parametrize(("length", "tokens"), [(1, 10), (0, 10), (-3, 10), (10, 9), (10, -1)])
def test_impossible_sizes(tokenizer, text, length, tokens):
    assert f"Windows of {length} tokens and {tokens}" in refusal(tokenizer, text=text, length=length, tokens=tokens)


@pytest.mark.parametrize("words", [0, 1, 6])
def test_a_text_that_is_too_short(tokenizer, tmp_path, words):
    short = write_words(tmp_path, [f"w{i}" for i in range(words)])
    said = refusal(tokenizer, text=short, length=8, tokens=8)
    assert f"words.txt has {words} tokens, too short for one window of 8" in said
    assert token_windows(tokenizer, text=write_words(tmp_path, ["w1"] * 7), length=8, tokens=8).ids.shape == (1, 8)


def test_texts_that_cannot_be_read(tokenizer, tmp_path):
    latin = tmp_path / "latin.txt"
    latin.write_bytes("Hügel".encode("latin-1"))
    assert "latin.txt is not UTF-8 text" in refusal(tokenizer, text=latin)
    assert "cannot be read (No such file or directory)" in refusal(tokenizer, text=tmp_path / "nothing.txt")
    assert "cannot be read (Is a directory)" in refusal(tokenizer, text=tmp_path)
    assert "cannot be read (File name too long)" in refusal(tokenizer, text="x" * 300)


def test_a_text_and_a_data_set_at_once(tokenizer, text):
    assert "Both a text file and a data set were given" in refusal(tokenizer, text=text, dataset="owner/name")


def test_the_built_in_text_is_long_prose_and_the_default(tokenizer):
    text = built_in_text()
    assert 300_000 < len(text) < 900_000
    assert text == built_in_text()
    assert text.count(" the ") > 2000
    windows = token_windows(tokenizer, length=8, tokens=8)
    assert windows.source == "pydoc_data.topics"
    assert windows.ids.shape == (1, 8)
