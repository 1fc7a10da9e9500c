"""Tokenizers of models that are trained here: one word a token for tasks, byte pairs for text."""

from collections.abc import Sequence
from typing import Any

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


def trained_tokenizer(texts: Sequence[str], vocabulary: int) -> Any:
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
