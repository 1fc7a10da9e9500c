"""Set single activations of the residual stream to a value, such as 0 or their mean over a text."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from monadnock.errors import MonadnockError
from monadnock.interventions.cache import cache_of
from monadnock.interventions.changed import check_features, check_layer
from monadnock.models import Adapter, observe
from monadnock.sites import Site, Stream


@contextmanager
def set_activations(
    adapter: Adapter, layer: int, values: Mapping[int, float], *, positions: Sequence[int] = (0,)
) -> Iterator[None]:
    """Set features of h, the output of a decoder layer, at some positions inside the block (sun2024).

    Passes that go on from a cache, as in generation, count positions from the start of the text.

    Args:
        adapter: the model.
        layer: 0-based decoder layer.
        values: value by 0-based feature of the residual stream.
        positions: 0-based positions in the window; those beyond the end of a shorter one are left out.

    Raises:
        MonadnockError: on a layer or feature that does not exist, or a negative position.

    Example:
        >>> with set_activations(adapter, 11, {507: 0.0}):  # doctest: +SKIP
        ...     logits = adapter.forward(ids)
    """
    check_layer(adapter, layer)
    check_features(adapter, list(values), adapter.hidden_size, "Feature")
    if wrong := [position for position in positions if position < 0]:
        raise MonadnockError(f"Position {wrong[0]} was asked; positions count from 0 at the start of a window.")
    features, new = torch.tensor(list(values), dtype=torch.int64), torch.tensor(list(values.values()))
    begun = [0]  # tokens in the cache before this pass

    def on_model(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        cache = cache_of(kwargs)
        begun[0] = 0 if cache is None else int(cache.get_seq_length())

    def on_output(_module: nn.Module, _args: Any, output: Any) -> Any:
        states: Tensor = output[0] if isinstance(output, tuple) else output
        here = [position - begun[0] for position in positions]
        here = torch.tensor([place for place in here if 0 <= place < states.shape[1]], dtype=torch.int64)
        if not len(here):
            return output
        states = states.clone()  # [batch, seq, d_model]
        states[:, here[:, None], features] = new.to(states)
        return (states, *output[1:]) if isinstance(output, tuple) else states

    watch = adapter.model.register_forward_pre_hook(on_model, with_kwargs=True)
    handle = adapter.layers[layer].register_forward_hook(on_output)
    try:
        yield
    finally:
        handle.remove()
        watch.remove()


def mean_activations(
    adapter: Adapter, ids: Tensor, layer: int, features: Sequence[int], *, positions: Sequence[int] = (0,)
) -> dict[int, float]:
    """Return the mean that features of h have at some positions over a calibration text (sun2024).

    To set a massive activation to its mean asks whether it is a constant that the model has learned to count on.

    Args:
        adapter: the model.
        ids: token ids, [window, seq].
        layer: 0-based decoder layer.
        features: 0-based features of the residual stream.
        positions: 0-based positions over which the mean is taken.

    Returns:
        The mean by feature.

    Raises:
        MonadnockError: on a layer, feature or position that does not exist.

    Example:
        >>> mean_activations(adapter, windows.ids, 11, [507])  # doctest: +SKIP
        {507: 24926.2}
    """
    check_layer(adapter, layer)
    check_features(adapter, list(features), adapter.hidden_size, "Feature")
    places = list(positions)
    if not places or not all(0 <= place < ids.shape[1] for place in places):
        raise MonadnockError(f"A mean over the positions {places} was asked, of windows of {ids.shape[1]} tokens.")
    total = torch.zeros(len(features), dtype=torch.float64)

    def add(states: Any) -> None:
        total.add_(states.values[places][:, list(features)].double().sum(0).cpu())

    with observe(adapter, {Site(Stream.RESIDUAL, layer): add}):
        for row in ids:
            adapter.forward(row)
    means = total / (len(places) * len(ids))
    return dict(zip(features, means.tolist(), strict=True))
