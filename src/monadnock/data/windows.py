"""Cut a text into token windows of one length, the same ones for the same seed."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monadnock.data.text import BUILT_IN, built_in_text, check_text, read_dataset, read_text
from monadnock.errors import MonadnockError


@dataclass(frozen=True)
class Windows:
    """Token windows of equal length.

    Attributes:
        ids: token ids, [window, seq].
        bos: whether a BOS token stands in front of each window.
        source: file, data set or built-in text that they come from.
        seed: seed that chose them.
        stride: how far each window of the text stands from the next; None if they do not overlap.
    """

    ids: Tensor
    bos: bool
    source: str
    seed: int
    stride: int | None = None

    @property
    def num_scored(self) -> int:
        """How many last tokens of a window are new: not seen in the one before it."""
        return self.stride or self.ids.shape[1] - self.bos

    @property
    def token_hash(self) -> str:
        """SHA-256 of the ids as little-endian int64."""
        return hashlib.sha256(self.ids.contiguous().numpy().astype("<i8").tobytes()).hexdigest()

    @property
    def label(self) -> str:
        """The text in words, the first digits of its hash included, so that two texts do not pass for one."""
        front = "BOS" if self.bos else "no BOS"
        stride = f", stride {self.stride}" if self.stride else ""
        count, length = self.ids.shape
        return f"{self.source}, {count} x {length}, {front}{stride}, {self.token_hash[:8]}"


def token_windows(
    tokenizer: Any,
    *,
    text: str | Path | None = None,
    dataset: str | None = None,
    length: int = 1024,
    tokens: int = 4096,
    bos: bool | None = None,
    seed: int = 0,
    stride: int | None = None,
) -> Windows:
    """Cut a text into windows and let the seed choose which, without overlap unless a stride is given.

    What remains at the end of the text and fills no window is left out.

    Args:
        tokenizer: a transformers tokenizer.
        text: a text file; by default the built-in text.
        dataset: a `datasets` name instead, as `owner/name:config:split`.
        length: tokens of a window, BOS included.
        tokens: tokens in all; rounded down to whole windows.
        bos: put the BOS token in front of each window; by default if the tokenizer has one.
        seed: chooses the windows.
        stride: tokens of the text from one window to the next; by default a whole window.

    Returns:
        `Windows` with ids [tokens // length, length].

    Raises:
        MonadnockError: if `bos` is asked and there is none, or the text is too short for one window.

    Example:
        >>> token_windows(tokenizer, length=512, tokens=1024).ids.shape  # doctest: +SKIP
        torch.Size([2, 512])
    """
    check_text(text, dataset)
    if length < 2 or tokens < length:
        raise MonadnockError(
            f"Windows of {length} tokens and {tokens} tokens in all were asked; "
            "a window needs at least 2 tokens, and the total at least one window."
        )
    if bos and tokenizer.bos_token_id is None:
        raise MonadnockError("A BOS token was asked, but this tokenizer has none; use --no-bos.")
    bos = tokenizer.bos_token_id is not None if bos is None else bos
    body = length - bos
    if stride is not None and not 1 <= stride <= body:
        raise MonadnockError(f"A stride of {stride} was asked; windows of {body} tokens of text allow 1 to {body}.")
    count = tokens // length
    if dataset is not None:
        source, raw = dataset, read_dataset(dataset, max_chars=tokens * 16)
    elif text is not None:
        source, raw = Path(text).name, read_text(text)
    else:
        source, raw = BUILT_IN, built_in_text()
    ids = torch.tensor(tokenizer(raw, add_special_tokens=False, verbose=False)["input_ids"], dtype=torch.int64)
    step = stride or body
    available = (len(ids) - body) // step + 1
    if available < 1:
        raise MonadnockError(
            f"The text {source} has {len(ids)} tokens, too short for one window of {length}; "
            "give a longer text or a smaller --length."
        )
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(available, generator=generator)[:count].sort().values
    windows = ids[chosen[:, None] * step + torch.arange(body)]
    if bos:
        windows = torch.cat([windows.new_full((len(windows), 1), tokenizer.bos_token_id), windows], dim=1)
    return Windows(windows, bos, source, seed, stride)
