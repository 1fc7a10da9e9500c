"""How well a model predicts a text, and how far its predictions are from those of the clean model."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monadnock.data import Windows
from monadnock.models import Adapter
from monadnock.models.replay import capture, replay

CHUNK = 2**24  # logits in memory at a time
ROWS = 32  # positions whose probabilities are taken at a time


@dataclass
class Likelihood:
    """Sums over the scored tokens of a text.

    Attributes:
        tokens: how many were scored.
        nats: sum of -ln p(token).
        divergence: sum of KL(clean || changed) over the vocabulary, in nats.
        agreements: how often the most probable token is that of the clean model.
    """

    tokens: int = 0
    nats: float = 0.0
    divergence: float = 0.0
    agreements: int = 0

    @property
    def perplexity(self) -> float:
        """exp of the mean of -ln p(token); infinity where that overflows."""
        mean = self.nats / self.tokens
        return math.exp(mean) if mean < 700 else mean * math.inf

    @property
    def kl(self) -> float:
        """Mean KL(clean || changed) of a next-token distribution, in nats."""
        return self.divergence / self.tokens

    @property
    def top1_agreement(self) -> float:
        """Share of positions at which the most probable token is that of the clean model; NaN if there is none."""
        return math.nan if math.isnan(self.nats) else self.agreements / self.tokens


def perplexity(adapter: Adapter, windows: Windows) -> float:
    """Return exp of the mean negative log-likelihood of the scored tokens of a text.

    In the first window all tokens but the first are scored, in each later one those that are new. On the joined test
    split of WikiText-2, all of it, in windows of 2,048 or 4,096 tokens without BOS, it is the number that papers on
    quantisation print; with a stride, the one of transformers' guide to perplexity.

    Args:
        adapter: the model.
        windows: the text.

    Example:
        >>> windows = token_windows(adapter.tokenizer, tokens=2048)  # doctest: +SKIP
        >>> perplexity(adapter, windows)  # doctest: +SKIP
        13.57
    """
    total = Likelihood()
    for window, ids in enumerate(windows.ids):
        score(adapter, windows, window, total, last_output(adapter, ids))
    return total.perplexity


def last_output(adapter: Adapter, ids: Tensor, start: tuple[int, Any] = (-1, None)) -> Any:
    """Return what the last decoder layer gives for a window, going on from what an earlier one gave (see `replay`)."""
    last = adapter.num_layers - 1
    with replay(adapter, *start):
        return capture(adapter, ids, [last])[last]


def score(adapter: Adapter, windows: Windows, window: int, total: Likelihood, output: Any, clean: Any = None) -> None:
    """Add one window to the sums.

    Args:
        adapter: the model; its final norm and unembedding are used.
        windows: the text.
        window: which of its windows.
        total: the sums to add to.
        output: what the last decoder layer gave for this window, from `last_output`.
        clean: the same of the clean model, for divergence and agreement.
    """
    ids = windows.ids[window]
    for place in _chunks(adapter, windows, window):
        logits = _logits(adapter, ids, output, place)
        expected = None if clean is None else _logits(adapter, ids, clean, place)
        target = ids[place + 1].to(logits.device)
        for start in range(0, len(place), ROWS):  # what fits into the cache of a CPU is four times as fast
            part = slice(start, start + ROWS)
            logs = logits[part].log_softmax(1)
            total.nats -= float(logs.gather(1, target[part, None]).double().sum())
            total.tokens += len(logs)
            if expected is not None:
                wanted = expected[part].log_softmax(1)
                total.agreements += int((wanted.argmax(1) == logs.argmax(1)).sum())
                total.divergence += float((wanted.exp() * (wanted - logs)).sum(1).double().sum())


def _logits(adapter: Adapter, ids: Tensor, output: Any, place: Tensor) -> Tensor:
    """Return the logits [position, vocab] that follow from what the last layer gave."""
    with replay(adapter, adapter.num_layers - 1, output):
        return adapter.forward(ids, keep=place).float()


def _chunks(adapter: Adapter, windows: Windows, window: int) -> Iterator[Tensor]:
    """Yield the positions whose next token is scored, as many at a time as their logits have room."""
    size = windows.ids.shape[1]
    first = 0 if window == 0 else max(size - windows.num_scored - 1, 0)
    rows = max(CHUNK // adapter.model.get_input_embeddings().weight.shape[0], 1)
    yield from torch.arange(first, size - 1).split(rows)
