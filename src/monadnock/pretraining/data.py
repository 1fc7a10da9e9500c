"""The data of a recipe: sequences to train on and sequences held back, with the tokenizer that goes with them."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from monadnock import processes
from monadnock.data.text import read_text, stream_dataset
from monadnock.errors import MonadnockError
from monadnock.evaluation.questions import digits
from monadnock.pretraining.backcopy import Backcopy
from monadnock.pretraining.corpus import Corpus, write_tokens
from monadnock.pretraining.recipe import Recipe, TaskData, TextData
from monadnock.pretraining.tokenizers import kept_tokenizer, told_by, word_tokenizer

LEARNED = 10**8  # characters of a data set on which a tokenizer is trained
HELD = -1  # seed of the task's sequences that are held back: no training has it


@dataclass(frozen=True)
class Data:
    """What a pretraining reads.

    Attributes:
        label: in words, with the first digits of a hash.
        train: sequences with input_ids and labels, [length].
        held: others, the same for every seed.
        tokenizer: of transformers.
        bos: whether every sequence begins with BOS.
        text: held-back sequences as text, for a task that is none; so that a trained model can be scanned on it.
    """

    label: str
    train: Dataset
    held: Dataset
    tokenizer: Any
    bos: bool
    text: str | None = None

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        return len(self.held[0]["input_ids"])

    def batches(self, count: int, size: int) -> list[dict[str, Tensor]]:
        """Return the first sequences held back, in batches: input_ids, attention_mask and labels."""
        rows = [self.held[place] for place in range(min(count, len(self.held)))]  # pyrefly: ignore[bad-argument-type]
        found = []
        for start in range(0, len(rows), size):
            part = {name: torch.stack([row[name] for row in rows[start : start + size]]) for name in rows[0]}
            found.append(part | {"attention_mask": torch.ones_like(part["input_ids"])})
        return found


def read_data(recipe: Recipe, seed: int, folder: Path) -> Data:
    """Return the data of a recipe; tokens of a text are written to `folder` once, and mapped from there.

    Raises:
        MonadnockError: if it cannot be read, or is too little for one sequence on either side.
    """
    data = recipe.data
    if isinstance(data, TaskData):
        return _task(data, recipe, seed)
    with _kept_if_used(folder):
        return _text(data, folder)


def _task(data: TaskData, recipe: Recipe, seed: int) -> Data:
    shape: dict[str, Any] = data.model_dump(exclude={"task"})
    count = recipe.steps * recipe.batch * recipe.accumulation * processes.count()
    held = Backcopy(recipe.held, **shape, seed=HELD)
    tokenizer = word_tokenizer(data.tokens)
    text = "\n".join(tokenizer.decode(row["input_ids"][1:]) for row in held.__getitems__(list(range(len(held)))))
    chain = f"{data.tokens} tokens, {data.triggers} triggers, spread {data.spread:g}{', pairs' * data.pairs}"
    label = f"backcopy, {chain}, {data.length + 1} a sequence"
    return Data(label, Backcopy(count, **shape, seed=seed), held, tokenizer, True, text)


@contextmanager
def _kept_if_used(folder: Path) -> Iterator[None]:
    """Take away what was written to a folder inside the block if the block fails."""
    before = set(folder.iterdir()) if folder.is_dir() else set()
    try:
        yield
    except BaseException:
        for made in set(folder.glob("[!.]*")) - before:  # hidden ones are another process's drafts
            shutil.rmtree(made, ignore_errors=True)
        with suppress(OSError):
            folder.rmdir()
        raise


def _text(data: TextData, folder: Path) -> Data:
    if bool(data.text) == bool(data.dataset):
        raise MonadnockError("A recipe of text needs files (text) or a data set (dataset), one of the two.")
    texts: Iterable[str] = [read_text(file) for file in data.text]
    which = digits(texts) if data.text else f"{data.dataset}, {data.characters} characters"
    if data.dataset:
        texts = stream_dataset(data.dataset, data.characters)
    about = {"texts": which, "tokenizer": data.tokenizer, "vocabulary": data.vocabulary}
    tokenizer: Any
    if data.tokenizer is None:
        beginning = texts if data.text else stream_dataset(str(data.dataset), min(data.characters, LEARNED))
        tokenizer = kept_tokenizer(folder / f"tokenizer-{digits(about)}", beginning, data.vocabulary)
    else:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(data.tokenizer)
        except (OSError, ValueError) as error:
            raise MonadnockError(
                f"The tokenizer of {data.tokenizer} cannot be had: {str(error).partition(chr(10))[0]}"
            ) from error
        about["tokenizer"] = told_by(tokenizer)
    if data.bos and tokenizer.bos_token_id is None:
        raise MonadnockError(f"The tokenizer of {data.tokenizer} has no BOS; leave bos out.")
    place = write_tokens(texts, tokenizer, folder, about)
    bos = tokenizer.bos_token_id if data.bos else None
    cut = 1 - data.validation
    train = Corpus(place, data.length, part=(0, cut), bos=bos, what="the part to train on")
    held = Corpus(
        place, data.length, part=(cut, 1), bos=bos, what=f"the part held back (validation {data.validation:g})"
    )
    names = f"{', '.join(Path(file).name for file in data.text)}, {which}" if data.text else which
    by = f", tokenizer {about['tokenizer']}" if data.tokenizer else ""
    label = f"{names}, {len(train) * data.length:,} tokens, {data.length} a sequence{by}"
    return Data(label, train, held, tokenizer, data.bos)
