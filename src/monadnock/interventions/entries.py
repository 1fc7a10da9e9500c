"""Change single weights: scale super weights, and set the gains of norms back to the median."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from monadnock.errors import MonadnockError
from monadnock.interventions.changed import changed, check_expert, check_features, check_layer
from monadnock.models import Adapter
from monadnock.models.offload import present


@contextmanager
def scale_weights(
    adapter: Adapter, layer: int, entries: Sequence[tuple[int, int]], factor: float = 0.0, *, expert: int | None = None
) -> Iterator[None]:
    """Multiply entries of W_down by a factor inside the block: 0 takes a super weight away (yu2024).

    Args:
        adapter: the model.
        layer: 0-based decoder layer.
        entries: (row, column) of the [d_model, d_mlp] matrix, none twice.
        factor: what they are multiplied with.
        expert: 0-based expert of a mixture-of-experts layer.

    Raises:
        MonadnockError: on a layer, entry or expert that does not exist, or weights that are kept on disk.

    Example:
        >>> with scale_weights(adapter, 11, [(507, 1229)]):  # doctest: +SKIP
        ...     logits = adapter.forward(ids)
    """
    check_layer(adapter, layer)
    check_expert(adapter, expert)
    width = adapter.intermediate_size
    check_features(adapter, list(dict.fromkeys(row for row, _ in entries)), adapter.hidden_size, "Row of W_down")
    check_features(adapter, list(dict.fromkeys(column for _, column in entries)), width, "Column of W_down")
    check_features(adapter, [row * width + column for row, column in entries], adapter.hidden_size * width, "Entry")

    def parts() -> list[Tensor]:
        down = adapter.weight(layer, "down", expert).strided
        return [down[row : row + 1, column : column + 1] for row, column in entries]

    def change(views: list[Tensor]) -> None:
        for view in views:
            view.mul_(factor)

    with changed(adapter, parts, change):
        yield


@contextmanager
def median_gains(
    adapter: Adapter,
    features: Sequence[int],
    *,
    norms: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
) -> Iterator[None]:
    """Set the gains of norms at some features to the median gain of each norm inside the block.

    Args:
        adapter: the model.
        features: 0-based features of the residual stream.
        norms: which norms, as `attn_input`, `mlp_input`, `attn_output`, `mlp_output`; by default those behind attention
            and FFN, where the family has them (Gemma 2 and 3, OLMo 2), whose gains are massive weights themselves.
        layers: which layers; by default all.

    Raises:
        MonadnockError: if the family has no such norm, or a layer or feature does not exist.

    Example:
        >>> with median_gains(adapter, [163, 400]):  # doctest: +SKIP
        ...     logits = adapter.forward(ids)
    """
    features = list(features)
    layers = list(range(adapter.num_layers) if layers is None else layers)
    for layer in layers:
        check_layer(adapter, layer)
    check_features(adapter, features, adapter.hidden_size, "Feature")
    known = [name for name in adapter.family.norms if name not in ("query", "key")]
    norms = [name for name in ("attn_output", "mlp_output") if name in known] if norms is None else list(norms)
    if not norms or (unknown := [name for name in norms if name not in known]):
        asked = "behind attention or FFN" if not norms else f"named {unknown[0]!r}"
        raise MonadnockError(f"Family {adapter.family.model_type} has no norm {asked}; name one of {', '.join(known)}.")

    def parts() -> list[Tensor]:
        found = [present(norm, "weight") for layer in layers for name in norms if (norm := adapter.norm(layer, name))]
        return [weight.detach() for weight in found if weight is not None]

    def change(views: list[Tensor]) -> None:
        offset = adapter.family.norm_offset
        for view in views:
            gains = view.float() + offset
            rank = (
                (gains - gains.median()).abs().argmin()
            )  # an entry of the norm itself, so that rounding plays no part
            view[torch.tensor(features, device=view.device)] = view[rank].clone()

    with changed(adapter, parts, change):
        yield
