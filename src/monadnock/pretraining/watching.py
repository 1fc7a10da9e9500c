"""One look at a model that is being trained: its largest activations, their shape and its sinks, layer by layer."""

from typing import Any

import torch
from torch import Tensor

from monadnock.errors import MonadnockError
from monadnock.models import Adapter, observe
from monadnock.models.attention import AttentionBlock
from monadnock.models.hooks import States
from monadnock.preparing import evaluating
from monadnock.sites import Site, Stream
from monadnock.stats.probabilities import SEEN_SHARE
from monadnock.thresholds import GU2025_SINK_MASS

LARGEST = 3  # entries of h that are kept
_STREAMS = (Stream.RESIDUAL, Stream.DOWN_PROJ_INPUT, Stream.ATTN_PROBS)


def watch(model: Adapter | Any, windows: Tensor) -> list[dict[str, Any]]:
    """Look at a model once, without gradients, and return a row for each layer.

    Largest entries and medians are of each window, in the mean over windows; kurtosis is over all of them. Sinks are
    those of the table `heads`: keys that get over 0.3 of the attention of the queries that see them, in the mean over
    windows, of keys that at least a quarter of the queries see. x_down is the largest of all windows.

    Args:
        model: an `Adapter`, or a transformers model, also inside DDP or torch.compile; it may be in training.
        windows: token ids, [window, token].

    Returns:
        Rows with layer, top_1 to top_3 (|h|), median, start (largest |h| at position 0), kurtosis, sinks (heads with
        one), heads, largest_sink, gated_sink (the same of gate times attention; null without a gate) and x_down.

    Raises:
        MonadnockError: if the model's family is not known, or windows are no token ids.

    Example:
        >>> rows = watch(model, ids)  # doctest: +SKIP
        >>> rows[0]["top_1"] / rows[0]["median"]  # doctest: +SKIP
        35.2
    """
    from monadnock.training.macdrop import bare_adapter

    windows = torch.as_tensor(windows)
    if windows.dim() != 2 or windows.is_floating_point() or not windows.numel():
        raise MonadnockError(f"Windows of shape {list(windows.shape)} were given; give token ids [sequence, token].")
    adapter = model if isinstance(model, Adapter) else bare_adapter(model, None)
    known, least, most = adapter.config.vocab_size, int(windows.min()), int(windows.max())
    if least < 0 or most >= known:
        raise MonadnockError(f"Windows hold token ids from {least} to {most}; the model knows 0 to {known - 1}.")
    layers = range(adapter.num_layers)
    seen = [_Layer() for _ in layers]
    watchers = {Site(stream, layer): getattr(seen[layer], stream) for stream in _STREAMS for layer in layers}
    with torch.no_grad(), evaluating(adapter.model), observe(adapter, watchers):
        for ids in windows:
            adapter.forward(ids, keep=1)
    return [{"layer": layer} | seen[layer].row() for layer in layers]


class _Layer:
    """What is seen of a layer, window by window."""

    def __init__(self) -> None:
        self.sizes: list[Tensor] = []  # of each window: top 3, median, start
        self.sums: list[Tensor] = []  # count and the first four powers of h
        self.inner: list[Tensor] = []  # largest |x_down|
        self.sinks: list[Tensor] = []  # of each window: largest share of a key, plain and gated, [2, head]
        self._sums: Tensor | None = None  # of the window under way: what keys get, [2, head, token]

    def residual(self, states: States) -> None:
        """Take in h, [token, d_model]."""
        values = states.values.float()
        magnitudes = values.abs()
        top = magnitudes.flatten().topk(min(LARGEST, magnitudes.numel())).values
        self.sizes.append(torch.cat([top, magnitudes.median()[None], magnitudes[0].max()[None]]))
        wide = values.double()
        square = wide * wide
        powers = (wide.sum(), square.sum(), (square * wide).sum(), (square * square).sum())
        self.sums.append(torch.stack([wide.new_tensor(wide.numel()), *powers]))

    def down_proj_input(self, states: States) -> None:
        """Take in x_down, of one expert in mixtures."""
        if states.values.numel():
            self.inner.append(states.values.abs().amax().float())

    def attn_probs(self, block: AttentionBlock) -> None:
        """Take in a block of queries; with that of the first query, which comes last, the window's sinks are known."""
        probs, counts = block.probs.float(), block.num_queries
        gated = torch.full_like(probs[:, 0], torch.nan)
        if block.gate is not None:
            gated = (probs * block.gate.float()[:, :, None]).sum(1)
        if self._sums is None:
            self._sums = probs.new_zeros(2, len(probs), len(counts))
        self._sums[:, :, block.first_key : block.first_key + probs.shape[2]] += torch.stack([probs.sum(1), gated])
        if block.first_query == 0:
            share = self._sums / counts.clamp(min=1)
            self.sinks.append(torch.where(counts >= SEEN_SHARE * counts.max(), share, -1.0).amax(2))
            self._sums = None

    def row(self) -> dict[str, Any]:
        """Return what was seen."""
        *tops, median, start = torch.stack(self.sizes).mean(0).tolist()
        sink, gated = torch.stack(self.sinks).mean(0)
        found = {f"top_{rank}": value for rank, value in enumerate(tops, start=1)}
        found |= {"median": median, "start": start, "kurtosis": _kurtosis(torch.stack(self.sums).sum(0))}
        found |= {"sinks": int((sink > GU2025_SINK_MASS).sum()), "heads": len(sink), "largest_sink": float(sink.max())}
        found["gated_sink"] = None if bool(gated.isnan().all()) else float(gated.max())
        return found | {"x_down": float(torch.stack(self.inner).max()) if self.inner else None}


def _kurtosis(sums: Tensor) -> float | None:
    """Return the fourth central moment over the squared variance; None if there is no variance."""
    count, s1, s2, s3, s4 = sums.tolist()
    mean = s1 / count
    variance = s2 / count - mean**2
    fourth = s4 / count - 4 * mean * s3 / count + 6 * mean**2 * s2 / count - 3 * mean**4
    return fourth / variance**2 if variance > 0 else None
