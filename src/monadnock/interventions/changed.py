"""Change a model's weights for a while, and put every bit back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from monadnock.errors import MonadnockError
from monadnock.models import Adapter


@contextmanager
def changed(
    adapter: Adapter, parts: Callable[[], list[Tensor]], change: Callable[[list[Tensor]], None]
) -> Iterator[None]:
    """Change views of the model's own weights for the time of the block, and write their old bits back after it.

    The bits come back after an exception too, and blocks nest: each gives back what it found.

    Args:
        adapter: the model.
        parts: finds the views; called twice, to see whether a change would reach the model.
        change: changes the views in place.

    Raises:
        MonadnockError: if the weights are kept on disk, so that what is written to them changes nothing.
    """
    views = parts()
    _check_reached(adapter, views, parts())
    before = [view.clone() for view in views]
    try:
        with torch.no_grad():
            change(views)
        yield
    finally:
        with torch.no_grad():
            for view, old in zip(views, before, strict=True):
                view.copy_(old)


def check_changeable(adapter: Adapter) -> None:
    """Raise a `MonadnockError` if weights are kept on disk, so that what is written to them changes nothing."""
    for layer in range(adapter.num_layers):
        if any(weight.is_meta for weight in adapter.layers[layer].parameters()):
            one, other = ([next(adapter.matrices(layer))[2].strided] for _ in range(2))
            _check_reached(adapter, one, other)


def _check_reached(adapter: Adapter, views: list[Tensor], again: list[Tensor]) -> None:
    if any(old.data_ptr() != new.data_ptr() for old, new in zip(views, again, strict=True)):
        raise MonadnockError(
            f"Weights of {adapter.source.id} are kept on disk and are read anew for every use, so that they cannot be "
            "changed; load the model whole, or with a device_map that needs no disk."
        )


def check_layer(adapter: Adapter, layer: int) -> None:
    """Raise a `MonadnockError` unless the model has this layer."""
    if not 0 <= layer < adapter.num_layers:
        raise MonadnockError(
            f"Layer {layer} was asked, but {adapter.source.id} has the layers 0 to {adapter.num_layers - 1}."
        )


def check_expert(adapter: Adapter, expert: int | None) -> None:
    """Raise a `MonadnockError` unless an expert is named where there are experts, and none where there are none."""
    count = adapter.num_experts
    if count is None and expert is not None:
        raise MonadnockError(f"Expert {expert} was asked, but {adapter.source.id} is dense and has no experts.")
    if count is not None and expert is None:
        raise MonadnockError(f"{adapter.source.id} has {count} experts in a layer; say which one is meant.")
    if count is not None and expert is not None and not 0 <= expert < count:
        raise MonadnockError(f"Expert {expert} was asked, but {adapter.source.id} has the experts 0 to {count - 1}.")


def check_features(adapter: Adapter, features: list[int], width: int, what: str) -> None:
    """Raise a `MonadnockError` unless all features lie within a width and none is named twice."""
    if wrong := [feature for feature in features if not 0 <= feature < width]:
        raise MonadnockError(f"{what} {wrong[0]} was asked, but {adapter.source.id} has {width}: 0 to {width - 1}.")
    if len(set(features)) < len(features):
        doubled = next(feature for feature in features if features.count(feature) > 1)
        raise MonadnockError(f"{what} {doubled} was asked twice.")
