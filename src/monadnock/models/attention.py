"""Observe attention in blocks of queries through the family's own eager function; no T x T matrix is kept."""

import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monadnock.errors import MonadnockError

NAME = "monadnock"
KEPT_MASK = 2**22  # mask entries that may be kept for the next layer: all of them up to windows of 2,896 tokens


@dataclass(frozen=True)
class AttentionBlock:
    """Probabilities of consecutive queries on consecutive keys; all other keys of these queries have none.

    Attributes:
        probs: [head, query, key], exactly as the model uses them.
        first_query: position of the first query.
        first_key: position of the first key.
        num_queries: how many queries of the whole window see each key, [seq].
        gate: what an attention variant multiplies the output of each query with, in the mean over the head's
            dimensions, [head, query]; None where it does not.
    """

    probs: Tensor
    first_query: int
    first_key: int
    num_queries: Tensor
    gate: Tensor | None = None


# attention module -> what to show its blocks to
watchers: "weakref.WeakKeyDictionary[nn.Module, Callable[[AttentionBlock], None]]" = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Passed:
    """What one call of the attention function got and gave: query [head, seq, d_head], key and value [kv_head, ...]."""

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    scale: float
    num_queries: Tensor


# attention module -> what its last call passed; only for modules that are named here
passed: "weakref.WeakKeyDictionary[nn.Module, Passed | None]" = weakref.WeakKeyDictionary()


class BlockMask:
    """The attention mask of one forward pass, made block by block when it is asked for."""

    def __init__(self, make: Callable[..., Tensor], size: int, arguments: dict[str, Any]):
        self.make, self.size, self.arguments = make, size, arguments
        self._ranges: dict[tuple[int, int], int] = {}
        self._kept: dict[tuple[int, int, int], Tensor] = {}
        self._room = KEPT_MASK  # the layers share their masks as long as there is room
        self._num_queries: Tensor | None = None

    def block(self, start: int, stop: int, first_key: int = 0) -> Tensor:
        """Return the additive mask [1, 1, stop - start, stop - first_key] of queries start to stop."""
        place = (start, stop, first_key)
        if place in self._kept:
            return self._kept[place]
        arguments = self.arguments | {
            "q_length": stop - start,
            "kv_length": stop - first_key,
            "q_offset": self.arguments.get("q_offset", 0) + start,
            "kv_offset": self.arguments.get("kv_offset", 0) + first_key,
        }
        mask = self.make(**arguments)
        if mask.numel() <= self._room:
            self._room -= mask.numel()
            self._kept[place] = mask
        return mask

    def first_key(self, start: int, stop: int) -> int:
        """Return the first key that any of the queries start to stop can see."""
        if (start, stop) not in self._ranges:
            visible = (self.block(start, stop) == 0).any(dim=-2).flatten()
            self._ranges[start, stop] = int(visible.int().argmax())
        return self._ranges[start, stop]

    def num_queries(self, rows: int) -> Tensor:
        """Return how many queries see each key, [seq], looking at `rows` queries at a time."""
        if self._num_queries is None:
            counts = None
            for start in range(0, self.size, rows):
                stop = min(start + rows, self.size)
                visible = (self.block(start, stop) == 0).sum(dim=-2).flatten()
                counts = visible.new_zeros(self.size) if counts is None else counts
                counts[:stop] += visible
            assert counts is not None
            self._num_queries = counts
        return self._num_queries


def register() -> None:
    """Make the observed attention function and its mask function known to transformers, under `monadnock`.

    Both are needed: without its mask function a registered attention function runs without a causal mask.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, observed_attention)
    AttentionMaskInterface.register(NAME, _lazy_mask)


def _lazy_mask(**arguments: Any) -> BlockMask:
    from transformers.masking_utils import eager_mask

    return BlockMask(eager_mask, arguments["q_length"], arguments)


class _Ungrouped:
    """An attention module whose keys and values are already repeated for every query head."""

    num_key_value_groups = 1

    def __init__(self, module: nn.Module):
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def eager_function(module: nn.Module) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return the eager attention function of the module's own family."""
    for cls in type(module).__mro__:
        function = getattr(sys.modules.get(cls.__module__), "eager_attention_forward", None)
        if function is not None:
            return function
    raise MonadnockError(f"Attention is not observed for {type(module).__name__}: its family has no eager function.")


def block_rows(heads: int, keys: int, device: torch.device) -> int:
    """Return how many queries to take at a time.

    On a CPU about a million scores at a time run nearly as fast as fused attention: fewer cost more calls, more cost
    more memory traffic (measured with 2 threads). On a GPU a block may be larger.
    """
    rows, budget = (128, 5 * 2**18) if device.type == "cpu" else (keys, 2**25)  # budget: scores of a block
    return max(8, min(rows, keys, budget // (heads * keys)))


def observed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: BlockMask,
    output_scale: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute attention block by block with the family's eager function, and show each block to the watcher.

    Args:
        module: the attention module.
        query: [1, head, seq, d_head].
        key: [1, kv_head, seq, d_head].
        value: [1, kv_head, seq, d_head].
        attention_mask: the mask that `_lazy_mask` made.
        output_scale: what attention variants multiply the output with, [1, seq, head, 1 or d_head].
        **kwargs: what the family passes to its eager function (scaling, softcap, s_aux, ...).

    Returns:
        The attention output [1, seq, head, d_head], and None in place of the probabilities.
    """
    eager = eager_function(module)
    watch = watchers.get(module)
    heads, size = query.shape[1], query.shape[2]
    groups, own_key, own_value = heads // key.shape[1], key[0], value[0]
    if groups > 1:  # once per layer, not once per block
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    owner = _Ungrouped(module)
    rows = block_rows(heads, size, query.device)
    num_queries = attention_mask.num_queries(rows).to(query.device)
    gate = None if output_scale is None else output_scale[0].mean(-1).t()  # [head, seq]
    outputs = []
    for start in reversed(range(0, size, rows)):  # the largest block first: the others fit into the memory it leaves
        stop = min(start + rows, size)
        first = attention_mask.first_key(start, stop)
        output, probs = eager(
            owner,
            query[:, :, start:stop],
            key[:, :, first:stop],
            value[:, :, first:stop],
            attention_mask.block(start, stop, first).to(query.device),
            **kwargs,
        )
        outputs.append(output)
        if watch is not None:
            watch(AttentionBlock(probs[0], start, first, num_queries, None if gate is None else gate[:, start:stop]))
    joined = torch.cat(outputs[::-1], dim=1)
    if module in passed:
        scale = kwargs.get("scaling")
        scale = query.shape[-1] ** -0.5 if scale is None else scale  # as transformers' eager functions do
        passed[module] = Passed(query[0], own_key, own_value, joined, scale, num_queries)
    return joined if output_scale is None else joined * output_scale, None
