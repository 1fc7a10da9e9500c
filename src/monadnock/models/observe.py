"""Watch chosen sites of a model during forward passes, and leave no trace afterwards."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monadnock.errors import MonadnockError
from monadnock.models import attention, experts
from monadnock.models.adapter import Adapter
from monadnock.models.attention import AttentionBlock
from monadnock.models.weight import cut
from monadnock.sites import Site, Stream


@dataclass(frozen=True)
class States:
    """States of one window at one site; the model may overwrite them afterwards, so copy what you keep.

    Attributes:
        values: [rows, width].
        position: position of each row in the window, [rows]; None if row i is position i.
        expert: expert of each row, [rows]; None in dense layers.
    """

    values: Tensor
    position: Tensor | None = None
    expert: Tensor | None = None


Watcher = Callable[[Any], None]  # takes States, or AttentionBlock at ATTN_PROBS

_INPUTS = {Stream.ATTN_INPUT: "q", Stream.MLP_INPUT: "up", Stream.DOWN_PROJ_INPUT: "down"}
_OUTPUTS = {
    Stream.QUERY: "q",
    Stream.KEY: "k",
    Stream.VALUE: "v",
    Stream.ATTN_OUTPUT: "o",
    Stream.MLP_OUTPUT: "down",
}


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
        probs = {site.layer: watch for site, watch in watchers.items() if site.stream is Stream.ATTN_PROBS}
        if probs:
            stack.enter_context(_watch_attention(adapter, probs))
        inner = {
            site.layer: watch
            for site, watch in watchers.items()
            if site.stream is Stream.DOWN_PROJ_INPUT and adapter.family.experts
        }
        if inner:
            stack.enter_context(_watch_experts(adapter, inner))
        for site, watch in watchers.items():
            if site.stream is Stream.ATTN_PROBS or (site.stream is Stream.DOWN_PROJ_INPUT and inner):
                continue
            handle = _hook(adapter, site, watch)
            stack.callback(handle.remove)
        yield


def _hook(adapter: Adapter, site: Site, watch: Watcher) -> Any:
    """Put a forward hook where the site's states pass."""
    family, layer = adapter.family, site.layer

    def rows(value: Any) -> Tensor:
        value = value[0] if isinstance(value, tuple) else value
        return value.detach().flatten(0, -2)

    def on_output(_module: nn.Module, _args: Any, output: Any) -> None:
        watch(States(rows(output)))

    def on_input(_module: nn.Module, args: tuple, kwargs: dict) -> None:
        watch(States(rows(args[0] if args else kwargs["hidden_states"])))

    if site.stream is Stream.RESIDUAL:
        return adapter.layers[layer].register_forward_hook(on_output)
    if site.stream is Stream.ROUTER_LOGITS:
        return adapter.module(layer, str(family.router)).register_forward_hook(on_output)
    if family.experts and site.stream in (Stream.MLP_INPUT, Stream.MLP_OUTPUT):
        module = adapter.module(layer, family.mlp_module)
        if site.stream is Stream.MLP_OUTPUT:
            return module.register_forward_hook(on_output)
        return module.register_forward_pre_hook(on_input, with_kwargs=True)
    role = _INPUTS.get(site.stream) or _OUTPUTS[site.stream]
    path, _, how = str(getattr(family, role)).partition("#")
    module = adapter.module(layer, path)
    if site.stream in _INPUTS:
        return module.register_forward_pre_hook(on_input, with_kwargs=True)

    def on_fused(_module: nn.Module, _args: Any, output: Any) -> None:
        part = cut(rows(output).t(), role, how, num_heads=adapter.num_heads, d_head=adapter.d_head, transposed=False)
        watch(States(part.read().t()))

    return module.register_forward_hook(on_fused if how else on_output)


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
    modules = {layer: adapter.module(layer, str(adapter.family.experts)) for layer in inner}

    def shows(watch: Watcher) -> Callable[[Tensor, Tensor, Tensor], None]:
        return lambda values, position, expert: watch(States(values, position, expert))

    with ExitStack() as stack:
        stack.enter_context(_restored(adapter.model, "_experts_implementation_internal"))
        for layer, module in modules.items():
            experts.watchers[module] = shows(inner[layer])
            stack.callback(experts.watchers.pop, module, None)
        adapter.model.set_experts_implementation(experts.NAME)
        yield
