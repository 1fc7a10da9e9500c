"""A tokenizer of a hundred words for the tiny models, and texts made of them."""

import random
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

NUM_WORDS = 100
BOS_ID = 1
FIRST_WORD_ID = 3  # of w0; <unk> is 0, <s> is 1, </s> is 2


def word_tokenizer(*, bos: bool = True, num_words: int = NUM_WORDS, first_id: int = FIRST_WORD_ID):
    """Return a tokenizer of the words w0, w1, ..., with <s> as BOS token.

    Args:
        bos: whether it has a BOS token.
        num_words: how many words.
        first_id: id of w0.
    """
    ids = {"<unk>": 0, "<s>": BOS_ID, "</s>": 2} | {f"w{i}": first_id + i for i in range(num_words)}
    tokenizer = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"eos_token": "</s>", "unk_token": "<unk>"} | ({"bos_token": "<s>"} if bos else {})
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def random_words(count: int, seed: int = 0, num_words: int = NUM_WORDS) -> list[str]:
    """Return `count` random words."""
    draw = random.Random(seed)
    return [f"w{draw.randrange(num_words)}" for _ in range(count)]


def write_words(folder: Path, words: Iterable[str], name: str = "words.txt") -> Path:
    """Write words to a text file in `folder` and return its path."""
    path = Path(folder) / name
    path.write_text(" ".join(words), encoding="utf-8")
    return path
