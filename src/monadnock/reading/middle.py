"""The middle dictionary: what the first layers make of each token, with BOS in front (wray2023)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from monadnock.errors import MonadnockError
from monadnock.models import Adapter
from monadnock.models.observe import States
from monadnock.models.start import run_layers
from monadnock.reading.dictionary import Dictionary, input_dictionary, num_words
from monadnock.sites import Site, Stream

LAYERS = 2
_TOKENS = 2048  # that are run at once, each with the start token in front


def steps(adapter: Adapter) -> int:
    """Return how often `middle_dictionary` calls its `step`."""
    return -(-num_words(adapter) // _TOKENS)


def check_middle(adapter: Adapter, layers: int) -> None:
    """Raise a `MonadnockError` unless a middle dictionary can be made behind so many layers."""
    if not 1 <= layers <= adapter.num_layers:
        raise MonadnockError(
            f"A middle dictionary behind {layers} layers was asked, but {adapter.source.id} has {adapter.num_layers}; "
            "read the input and output dictionaries alone."
        )


def middle_dictionary(
    adapter: Adapter, start_token: int, *, layers: int = LAYERS, step: Callable[[], None] = lambda: None
) -> Dictionary:
    """Make the middle dictionary, an approximation: run (start, t) for each token t, and keep what the layers add.

    Of the L2-normalised state at t behind the first layers, the projection on t's own embedding is taken away, then the
    mean over the vocabulary; what is left is normalised. The mean is taken from the states that are read, too. Where
    states are not normalised first, as the words of the definition allow, large ones make up the mean, and common
    tokens point away from their own states: in SmolLM2, ' ball' reads itself with -0.67.

    Args:
        adapter: the model.
        start_token: BOS, or what stands in for it.
        layers: how many layers run.
        step: called for every block of tokens.

    Raises:
        MonadnockError: if the model has fewer layers.

    Example:
        >>> words = middle_dictionary(adapter, adapter.tokenizer.bos_token_id)  # doctest: +SKIP
    """
    check_middle(adapter, layers)
    own = input_dictionary(adapter)
    rows = torch.empty(own.rows.shape, dtype=adapter.dtype)
    total = torch.zeros(own.rows.shape[1], dtype=torch.float64)
    for start in range(0, len(rows), _TOKENS):
        ids = torch.arange(start, min(start + _TOKENS, len(rows)))
        state = F.normalize(_behind(adapter, torch.stack([torch.full_like(ids, start_token), ids], 1), layers), dim=1)
        embedding = F.normalize(own.rows[ids].float().cpu(), dim=1)
        state = state - (state * embedding).sum(1, keepdim=True) * embedding
        rows[ids] = state.to(rows.dtype)
        total += state.double().sum(0)
        step()
    mean = (total / len(rows)).float()
    for part in rows.split(_TOKENS):  # in place: the whole in float32 may be as large as the model
        part.copy_(F.normalize(part.float() - mean, dim=1))
    name = "middle" if layers == LAYERS else f"middle {layers}"
    return Dictionary(name, rows.to(own.rows.device), mean=mean)


def _behind(adapter: Adapter, ids: Tensor, layers: int) -> Tensor:
    """Return the state of the last position behind the first layers, [window, d_model] (float32, CPU)."""
    kept: list[Tensor] = []

    def keep(batch: States) -> None:
        kept.append(batch.values.view(*ids.shape, -1)[:, -1].float().cpu())

    run_layers(adapter, ids, {Site(Stream.RESIDUAL, layers - 1): keep}, lambda layer: layer == layers - 1)
    return kept[0]
