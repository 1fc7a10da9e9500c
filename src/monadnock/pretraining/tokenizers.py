"""Tokenizers of models that are trained here: one word a token for tasks, byte pairs for text."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from monadnock.errors import MonadnockError
from monadnock.evaluation.questions import digits

BOS, EOS = "<bos>", "<eos>"


def word_tokenizer(tokens: int) -> Any:
    """Return a tokenizer of the words t0, t1, ...; BOS is 0, so that t0 is 1.

    Example:
        >>> word_tokenizer(3)("t0 t2", add_special_tokens=False)["input_ids"]
        [1, 3]
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {BOS: 0} | {f"t{number}": number + 1 for number in range(tokens)}
    inner = Tokenizer(models.WordLevel(words, unk_token=BOS))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=BOS)


def trained_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """Return a byte-level BPE tokenizer trained on texts; BOS is 0 and EOS is 1."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[BOS, EOS], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator((line for text in texts for line in text.splitlines(keepends=True)), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=BOS, eos_token=EOS)


def kept_tokenizer(folder: Path, texts: Iterable[str], vocabulary: int) -> Any:
    """Return the tokenizer that is in a folder, or train one and put it there.

    Raises:
        MonadnockError: if it cannot be written.
    """
    from transformers import PreTrainedTokenizerFast

    if (folder / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer = trained_tokenizer(texts, vocabulary)
    draft = folder.with_name(f".{folder.name}-{os.getpid()}")
    try:
        draft.mkdir(parents=True, exist_ok=True)
        tokenizer.save_pretrained(draft)
        if not (folder / "tokenizer.json").is_file():  # another process may have been faster
            shutil.rmtree(folder, ignore_errors=True)
            draft.rename(folder)
    except OSError as error:
        raise MonadnockError(f"A tokenizer could not be written to {folder}: {error.strerror}.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return tokenizer


def told_by(tokenizer: Any) -> str:
    """Return the first digits of the hash of all that decides a tokenizer's ids, whatever it is called."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    return digits(sorted(tokenizer.get_vocab().items()) if inner is None else inner.to_str())
