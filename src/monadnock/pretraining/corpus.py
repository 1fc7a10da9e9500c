"""Text as memory-mapped tokens: written once, read window by window in a seeded order."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from monadnock.errors import MonadnockError
from monadnock.training.tokens import IGNORED

_TOKENS, _FACTS = "tokens.npy", "tokens.json"
_CHARACTERS = 2**20  # of text that is tokenised at a time


def write_tokens(texts: Iterable[str], tokenizer: Any, folder: Path, about: dict[str, Any]) -> Path:
    """Tokenise texts, one behind another with EOS between them, into a file of `folder`; again does nothing.

    Args:
        texts: documents.
        tokenizer: a transformers tokenizer.
        folder: where the file goes.
        about: what the tokens depend on; with other facts there is another file.

    Returns:
        The folder with the tokens, as uint16 or uint32, and their number.

    Raises:
        MonadnockError: if it cannot be written.
    """
    told = json.dumps(about, sort_keys=True)
    place = folder / hashlib.sha256(told.encode()).hexdigest()[:16]
    if (place / _FACTS).is_file():
        return place
    kind = np.uint16 if len(tokenizer) <= 2**16 else np.uint32
    count, draft = 0, folder / f".{place.name}-{os.getpid()}"  # in its place only when it is whole
    try:
        draft.mkdir(parents=True, exist_ok=True)
        with (draft / _TOKENS).open("wb") as file:
            for ids in _ids(texts, tokenizer):
                file.write(np.asarray(ids, kind).tobytes())
                count += len(ids)
        facts = {"count": count, "dtype": np.dtype(kind).name, "about": about}
        (draft / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
        if not (place / _FACTS).is_file():
            shutil.rmtree(place, ignore_errors=True)
            draft.rename(place)
    except OSError as error:
        raise MonadnockError(f"Tokens could not be written to {place}: {error.strerror}.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return place


def _ids(texts: Iterable[str], tokenizer: Any) -> Iterator[list[int]]:
    """Yield the tokens of pieces of text, EOS behind the last one of each; many pieces are tokenised at a time."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    pieces: list[str] = []
    ends: list[list[int]] = []
    size = 0

    def done() -> Iterator[list[int]]:
        found = tokenizer(pieces, add_special_tokens=False)["input_ids"] if pieces else []
        yield from (ids + behind for ids, behind in zip(found, ends, strict=True))

    for text in texts:
        for start in range(0, max(len(text), 1), _CHARACTERS):
            pieces.append(text[start : start + _CHARACTERS])
            ends.append(end if start + _CHARACTERS >= len(text) else [])
            size += len(pieces[-1])
            if size >= _CHARACTERS:
                yield from done()
                pieces, ends, size = [], [], 0
    yield from done()


class Corpus(Dataset):
    """Windows of memory-mapped tokens, without overlap.

    Args:
        folder: of `write_tokens`.
        length: tokens of a window.
        part: (start, stop), shares of the tokens, so that a part can be held back.
        bos: a token in front of every window, or None; the prediction at it does not count.
        what: the part, in words.

    Raises:
        MonadnockError: if there is no window, or the file is not what it says.
    """

    def __init__(
        self,
        folder: Path,
        length: int,
        *,
        part: tuple[float, float] = (0, 1),
        bos: int | None = None,
        what: str = "the text",
    ):
        try:
            facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
            whole = np.memmap(folder / _TOKENS, dtype=facts["dtype"], mode="r", shape=(facts["count"],))
        except (OSError, ValueError, KeyError) as error:
            raise MonadnockError(f"{folder} holds no tokens that can be read ({error}); remove it.") from error
        self._tokens = whole[int(part[0] * len(whole)) : int(part[1] * len(whole))]
        self.length, self.bos = length, bos
        self._own = length - (bos is not None)
        if len(self) < 1:
            raise MonadnockError(
                f"{what[0].upper()}{what[1:]} has {len(self._tokens)} of {len(whole)} tokens, too few for a window of "
                f"{length}; give more text, or shorter windows."
            )

    def __len__(self) -> int:
        return len(self._tokens) // self._own

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one window: `input_ids` and `labels`, [length]."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        own = torch.from_numpy(self._tokens[index * self._own : (index + 1) * self._own].astype(np.int64))
        if self.bos is None:
            labels = own.clone()
            labels[0] = IGNORED  # nothing predicts the first token, but Trainers count its label
            return {"input_ids": own, "labels": labels}
        ids = torch.cat([torch.tensor([self.bos]), own])
        labels = ids.clone()
        labels[:2] = IGNORED  # labels are shifted: the second is what the prediction at BOS is held against
        return {"input_ids": ids, "labels": labels}
