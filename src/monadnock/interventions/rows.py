"""Zero or retain rows of W_up and W_gate: the attacks of oh2024, and random rows to compare them with."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from monadnock.errors import MonadnockError
from monadnock.interventions.changed import changed, check_expert, check_features, check_layer
from monadnock.models import Adapter


def zero_rows(
    adapter: Adapter, layer: int, rows: Sequence[int], *, expert: int | None = None
) -> AbstractContextManager[None]:
    """Set rows of W_up, of W_gate where there is one, and their biases to zero inside the block (oh2024).

    Row i makes feature i of x_down, which is then 0 for every token.

    Args:
        adapter: the model.
        layer: 0-based decoder layer.
        rows: rows of the [d_mlp, d_model] matrices, none twice.
        expert: 0-based expert of a mixture-of-experts layer.

    Raises:
        MonadnockError: on a layer, row or expert that does not exist, or weights that are kept on disk.

    Example:
        >>> with zero_rows(adapter, 11, [1229, 1487]):  # doctest: +SKIP
        ...     logits = adapter.forward(ids)
    """
    return _zeroed(adapter, layer, list(rows), expert, retain=False)


def retain_rows(
    adapter: Adapter, layer: int, rows: Sequence[int], *, expert: int | None = None
) -> AbstractContextManager[None]:
    """Set all other rows of W_up, of W_gate where there is one, and their biases to zero inside the block (oh2024).

    Arguments and errors are those of `zero_rows`.

    Example:
        >>> with retain_rows(adapter, 11, [1229, 1487]):  # doctest: +SKIP
        ...     logits = adapter.forward(ids)
    """
    return _zeroed(adapter, layer, list(rows), expert, retain=True)


def random_rows(width: int, k: int, *, seed: int = 0, besides: Sequence[int] = ()) -> list[int]:
    """Return k different random rows, a control for as many chosen ones.

    Args:
        width: number of rows there are.
        k: how many are drawn.
        seed: the rows depend on this, `width` and `besides` only.
        besides: rows that are not drawn.

    Raises:
        MonadnockError: if there are fewer than k such rows.

    Example:
        >>> random_rows(6, 3, besides=[0, 1, 2])
        [5, 3, 4]
    """
    free = sorted(set(range(width)) - set(besides))
    if k > len(free):
        raise MonadnockError(f"{k} random rows were asked, but only {len(free)} of {width} are left to draw from.")
    order = torch.randperm(len(free), generator=torch.Generator().manual_seed(seed))
    return [free[place] for place in order[:k].tolist()]


@contextmanager
def _zeroed(adapter: Adapter, layer: int, rows: list[int], expert: int | None, *, retain: bool) -> Iterator[None]:
    check_layer(adapter, layer)
    check_expert(adapter, expert)
    check_features(adapter, rows, adapter.intermediate_size, "Row")

    def parts() -> list[Tensor]:
        roles = ["up", "gate"] if adapter.has("gate") else ["up"]
        found = [adapter.weight(layer, role, expert) for role in roles]
        found += [bias for role in roles if (bias := adapter.bias(layer, role, expert)) is not None]
        return [view.strided for view in found]  # [d_mlp, ...]: up and gate are never grouped by heads

    def change(views: list[Tensor]) -> None:
        for view in views:
            chosen = torch.zeros(len(view), dtype=torch.bool, device=view.device)
            chosen[rows] = True
            view[~chosen if retain else chosen] = 0

    with changed(adapter, parts, change):
        yield
