"""Watch chosen sites of a model during forward passes, and leave no trace afterwards."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from monadnock.errors import MonadnockError
from monadnock.models import attention, experts
from monadnock.models.adapter import Adapter, bare
from monadnock.models.attention import AttentionBlock
from monadnock.models.heads import watch_heads
from monadnock.models.hooks import States, Watcher, hook
from monadnock.sites import Site, Stream


@contextmanager
def observe(adapter: Adapter, watchers: Mapping[Site, Watcher]) -> Iterator[None]:
    """Show every watcher the states at its site, for each forward pass of one window inside the block.

    Hooks, the attention function and the experts function are put back afterwards, also after an exception.

    Args:
        adapter: the model.
        watchers: for each site, a function that takes `States`, or `AttentionBlock` at `ATTN_PROBS`.

    Raises:
        MonadnockError: if a stream does not exist in this family.
    """
    if missing := {site.stream for site in watchers} - adapter.streams():
        raise MonadnockError(f"Family {adapter.family.model_type} has no stream {', '.join(sorted(missing))}.")
    with ExitStack() as stack:
        probs = _by_layer(watchers, Stream.ATTN_PROBS, Stream.HEADS)
        if probs:
            stack.enter_context(_watch_attention(adapter, probs))
        if heads := _by_layer(watchers, Stream.HEADS):
            stack.enter_context(watch_heads(adapter, heads))
        inner = {
            site.layer: watch
            for site, watch in watchers.items()
            if site.stream is Stream.DOWN_PROJ_INPUT and adapter.family.experts
        }
        if inner:
            stack.enter_context(_watch_experts(adapter, inner))
        for site, watch in watchers.items():
            if site.stream in (Stream.ATTN_PROBS, Stream.HEADS) or (site.stream is Stream.DOWN_PROJ_INPUT and inner):
                continue
            handle = hook(adapter, site, watch)
            stack.callback(handle.remove)
        yield


def _by_layer(watchers: Mapping[Site, Watcher], *streams: Stream) -> dict[int, Watcher]:
    """Return one watcher for each layer that shows what it sees to those of all these streams."""
    found: dict[int, list[Watcher]] = {}
    for site, watch in watchers.items():
        if site.stream in streams:
            found.setdefault(site.layer, []).append(watch)

    def all_of(group: list[Watcher]) -> Watcher:
        def show(seen: Any) -> None:
            for watch in group:
                watch(seen)

        return group[0] if len(group) == 1 else show

    return {layer: all_of(group) for layer, group in found.items()}


@contextmanager
def _watch_attention(adapter: Adapter, probs: Mapping[int, Watcher]) -> Iterator[None]:
    """Run the whole model with observed attention, or with its own eager code where it returns probabilities."""
    family, model = adapter.family, adapter.model
    modules = {layer: adapter.module(layer, family.attention_module) for layer in range(adapter.num_layers)}
    with ExitStack() as stack:
        stack.enter_context(_restored(model, "_attn_implementation_internal"))
        if family.attention == "returned":
            adapter.config._attn_implementation_internal = "eager"  # the setter is for models with the interface
            for layer, module in modules.items():
                if family.alibi_in_mask:
                    silence = _pass_zeros(family.alibi_in_mask)
                    stack.callback(module.register_forward_pre_hook(silence, with_kwargs=True).remove)
                if layer in probs:
                    stack.callback(module.register_forward_hook(_show_returned(probs[layer])).remove)
        else:
            attention.register()
            for layer, watch in probs.items():
                attention.watchers[modules[layer]] = watch
                stack.callback(attention.watchers.pop, modules[layer], None)
            model.set_attn_implementation(attention.NAME)
            if adapter.config._attn_implementation != attention.NAME:
                raise MonadnockError(f"Attention is not observed for {family.model_type}: transformers refused it.")
        yield


@contextmanager
def _restored(model: nn.Module, attribute: str) -> Iterator[None]:
    """Give every config in the model its value of an attribute back afterwards."""
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    before = [(config, getattr(config, attribute)) for config in configs.values() if hasattr(config, attribute)]
    if not before:  # a private name of transformers, which has no public way to restore every config
        raise MonadnockError(f"This version of transformers keeps no {attribute}; install 5.23, or a newer monadnock.")
    try:
        yield
    finally:
        for config, value in before:
            setattr(config, attribute, value)


def _pass_zeros(name: str) -> Callable[[nn.Module, tuple, dict], tuple[tuple, dict]]:
    """Make a hook that passes zeros in place of one keyword argument."""

    def hook(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return args, kwargs | {name: torch.zeros_like(kwargs[name])}

    return hook


def _show_returned(watch: Watcher) -> Callable[[nn.Module, Any, Any], None]:
    """Make a hook that shows the probabilities that an attention module returned as its second output."""

    def hook(module: nn.Module, _args: Any, output: Any) -> None:
        if output[1] is None:
            raise MonadnockError(f"Attention is not observed: {type(module).__name__} returned no probabilities.")
        probs = output[1][0]  # head x query x key
        size = probs.shape[-1]
        watch(AttentionBlock(probs, 0, 0, torch.arange(size, 0, -1, device=probs.device)))

    return hook


@contextmanager
def _watch_experts(adapter: Adapter, inner: Mapping[int, Watcher]) -> Iterator[None]:
    """Run the model's experts one at a time so that their intermediate states can be seen."""
    experts.register()
    modules = {layer: bare(adapter.module(layer, str(adapter.family.experts))) for layer in inner}

    def shows(watch: Watcher) -> Callable[[Tensor, Tensor, Tensor], None]:
        return lambda values, position, expert: watch(States(values, position, expert))

    with ExitStack() as stack:
        stack.enter_context(_restored(adapter.model, "_experts_implementation_internal"))
        for layer, module in modules.items():
            experts.watchers[module] = shows(inner[layer])
            stack.callback(experts.watchers.pop, module, None)
        adapter.model.set_experts_implementation(experts.NAME)
        yield
