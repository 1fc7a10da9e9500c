"""Queries, keys and values of a window as attention used them, shown once all its probabilities have been."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monadnock.models import attention
from monadnock.models.adapter import Adapter
from monadnock.models.hooks import hook
from monadnock.models.rotary import Turn, watch_turns
from monadnock.sites import Site, Stream


@dataclass(frozen=True)
class HeadStates:
    """What the heads of one layer had of one window; the model may overwrite it, so copy what you keep.

    Attributes:
        query: behind norms and rotary, [head, seq, d_head].
        key: likewise, [kv_head, seq, d_head].
        value: [kv_head, seq, d_head].
        scale: what query-key products are multiplied with before the softmax.
        num_queries: how many queries see each key, [seq].
        turn: how rotary turned queries and keys; None where it did not.
        gate: |gate * y| / |y| for what each query of each head read, [head, seq]; None where nothing gates it.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    num_queries: Tensor
    turn: Turn | None
    gate: Tensor | None


@contextmanager
def watch_heads(adapter: Adapter, watchers: Mapping[int, Callable[[HeadStates], None]]) -> Iterator[None]:
    """Show every watcher the head states of its layer, after the blocks that `attention` shows.

    Args:
        adapter: the model, whose attention is observed already.
        watchers: by layer.
    """
    turns: dict[int, Turn | None] = {}
    with ExitStack() as stack:
        stack.enter_context(watch_turns(adapter, turns.__setitem__, iter(watchers)))
        for layer, watch in watchers.items():
            collect = _returned if adapter.family.attention == "returned" else _through_interface
            stack.enter_context(collect(adapter, layer, watch, turns))
        yield


@contextmanager
def _through_interface(
    adapter: Adapter, layer: int, watch: Callable[[HeadStates], None], turns: Mapping[int, Turn | None]
) -> Iterator[None]:
    """Take what the observed attention function got; what reaches the output projection tells whether it was gated."""
    module = adapter.module(layer, adapter.family.attention_module)

    def on_mixed(_module: nn.Module, args: tuple) -> None:
        used = attention.passed[module]
        assert used is not None
        attention.passed[module] = None
        read, mixed = used.output[0], args[0].reshape(used.output[0].shape)  # [seq, head, d_head]
        gate = None
        same = torch.equal(read, mixed) or torch.equal(read.nan_to_num(), mixed.nan_to_num())  # NaN is no gate
        if not same:
            gate = (mixed.float().norm(dim=-1) / read.float().norm(dim=-1).clamp(min=1e-30)).t()
        watch(HeadStates(used.query, used.key, used.value, used.scale, used.num_queries, turns.get(layer), gate))

    attention.passed[module] = None
    handle = adapter.module(layer, adapter.family.o).register_forward_pre_hook(on_mixed)
    try:
        yield
    finally:
        handle.remove()
        attention.passed.pop(module, None)


@contextmanager
def _returned(
    adapter: Adapter, layer: int, watch: Callable[[HeadStates], None], turns: Mapping[int, Turn | None]
) -> Iterator[None]:
    """Take what the projections gave, and turn it as the attention module does inside."""
    module = adapter.module(layer, adapter.family.attention_module)
    seen: dict[Stream, Tensor] = {}

    def keep(stream: Stream) -> Callable[[Any], None]:
        def take(states: Any) -> None:
            seen[stream] = states.values.unflatten(-1, (-1, adapter.d_head)).transpose(0, 1)

        return take

    def on_done(_module: nn.Module, _args: Any, _output: Any) -> None:
        turn, scale = turns.get(layer), getattr(module, "softmax_scale", None) or adapter.d_head**-0.5
        query, key, value = (seen.pop(stream) for stream in (Stream.QUERY, Stream.KEY, Stream.VALUE))
        if clip := getattr(module, "clip_qkv", None):
            query, key, value = (part.clamp(-clip, clip) for part in (query, key, value))
        if turn is not None:
            query, key = turn.turned(query), turn.turned(key)
        size = query.shape[1]
        num_queries = torch.arange(size, 0, -1, device=query.device)
        watch(HeadStates(query, key, value, scale, num_queries, turn, None))

    with ExitStack() as stack:
        for stream in (Stream.QUERY, Stream.KEY, Stream.VALUE):
            stack.callback(hook(adapter, Site(stream, layer), keep(stream)).remove)
        stack.callback(module.register_forward_hook(on_done).remove)
        yield
