"""Mask keys, so that no later query can attend to them: the sink taken away through the mask."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from monadnock.errors import MonadnockError
from monadnock.interventions.cache import cache_of
from monadnock.interventions.changed import check_layer
from monadnock.models import Adapter
from monadnock.models.attention import NAME, BlockMask
from monadnock.models.variants.formulas import NAME as VARIED


@contextmanager
def mask_keys(
    adapter: Adapter, positions: Sequence[int] = (0,), *, layers: Sequence[int] | None = None
) -> Iterator[None]:
    """Mask keys inside the block: their attention goes to the other keys, through the softmax.

    A query still sees its own key, so that the masked tokens themselves have something to attend to.

    Args:
        adapter: the model.
        positions: 0-based positions of the keys; position 0 is where most sinks are.
        layers: which layers; by default all.

    Raises:
        MonadnockError: on a layer that does not exist, or a negative position.

    Example:
        >>> with mask_keys(adapter, [0]):  # doctest: +SKIP
        ...     logits = adapter.forward(ids)
    """
    for layer in layers or []:
        check_layer(adapter, layer)
    if wrong := [position for position in positions if position < 0]:
        raise MonadnockError(f"Position {wrong[0]} was asked; positions count from 0 at the start of a window.")
    if (how := adapter.config._attn_implementation) not in (None, "eager", "sdpa", NAME, VARIED):
        raise MonadnockError(f"Keys cannot be masked under attention {how!r}; load the model with eager or sdpa.")
    keys = torch.tensor(sorted(set(positions)), dtype=torch.int64)
    with ExitStack() as stack:
        for layer in range(adapter.num_layers) if layers is None else dict.fromkeys(layers):
            module = adapter.module(layer, adapter.family.attention_module)
            handle = module.register_forward_pre_hook(_masks(adapter, layer, keys), with_kwargs=True)
            stack.callback(handle.remove)
        yield


def _masks(adapter: Adapter, layer: int, keys: Tensor) -> Callable[[nn.Module, tuple, dict[str, Any]], Any]:
    """Make a hook that passes another attention mask to an attention module."""

    def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
        if "attention_mask" not in kwargs:
            raise MonadnockError(f"Keys are not masked: {type(module).__name__} is given no attention_mask by name.")
        mask = kwargs["attention_mask"]
        if isinstance(mask, BlockMask):
            return args, kwargs | {"attention_mask": _Masked(mask, keys)}
        states: Tensor = args[0] if args else kwargs["hidden_states"]
        size = states.shape[1]
        cache = cache_of(kwargs)
        width, first_key = (size, 0) if cache is None else cache.get_mask_sizes(size, layer)
        begun = 0 if cache is None else cache.get_seq_length(layer)
        if mask is None:  # the fused functions know by themselves that attention is causal
            mask = torch.ones(size, width, dtype=torch.bool, device=states.device).tril(width - size)[None, None]
        if not isinstance(mask, Tensor) or mask.dim() != 4:
            raise MonadnockError(f"Keys are not masked: {type(module).__name__} has a mask of an unknown kind.")
        queries = torch.arange(begun, begun + size, device=mask.device)
        return args, kwargs | {"attention_mask": _without(mask, queries, first_key, keys)}

    return hook


class _Masked(BlockMask):
    """The mask of an observed pass without some keys; how many queries see a key is told as without the change."""

    def __init__(self, mask: BlockMask, keys: Tensor):
        self._whole, self._keys = mask, keys
        self.size = mask.size

    def block(self, start: int, stop: int, first_key: int = 0) -> Tensor:
        mask = self._whole.block(start, stop, first_key)
        return _without(mask, torch.arange(start, stop, device=mask.device), first_key, self._keys)

    def first_key(self, start: int, stop: int) -> int:
        return self._whole.first_key(start, stop)

    def num_queries(self, rows: int) -> Tensor:
        return self._whole.num_queries(rows)


def _without(mask: Tensor, queries: Tensor, first_key: int, keys: Tensor) -> Tensor:
    """Return a copy of a mask [1 or batch, 1 or head, query, key] in which all queries but their own miss some keys.

    Args:
        mask: added to the logits, or a flag: what it says of a query and its own key means visible.
        queries: positions of the queries.
        first_key: position of the first key.
        keys: positions of the keys that are to be missed.
    """
    column = torch.arange(first_key, first_key + mask.shape[-1], device=mask.device)
    own = column == queries[:, None]  # [query, key]
    hidden = torch.isin(column, keys.to(mask.device)) & ~own
    if mask.dtype != torch.bool:
        return mask.masked_fill(hidden, torch.finfo(mask.dtype).min)
    visible = bool((mask & own).any())
    return mask & ~hidden if visible else mask | hidden
