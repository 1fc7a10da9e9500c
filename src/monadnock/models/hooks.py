"""One forward hook for each site whose states pass through a module as they are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from monadnock.models.adapter import Adapter
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


Watcher = Callable[[Any], None]  # takes States; AttentionBlock at ATTN_PROBS; AttentionBlock, then HeadStates, at HEADS

_INPUTS = {
    Stream.ATTN_INPUT: "q",
    Stream.O_PROJ_INPUT: "o",
    Stream.MLP_INPUT: "up",
    Stream.DOWN_PROJ_INPUT: "down",
}
_OUTPUTS = {
    Stream.QUERY: "q",
    Stream.KEY: "k",
    Stream.VALUE: "v",
    Stream.ATTN_OUTPUT: "o",
    Stream.MLP_OUTPUT: "down",
}
_NORMS = {Stream.ATTN_UPDATE: "attn_output", Stream.MLP_UPDATE: "mlp_output"}


def hook(adapter: Adapter, site: Site, watch: Watcher) -> Any:
    """Put a forward hook where the site's states pass."""
    family, layer = adapter.family, site.layer

    def rows(value: Any) -> Tensor:
        value = value[0] if isinstance(value, tuple) else value
        return value.detach().flatten(0, -2)

    def on_output(_module: nn.Module, _args: Any, output: Any) -> None:
        watch(States(rows(output)))

    def on_input(_module: nn.Module, args: tuple, kwargs: dict) -> None:
        watch(States(rows(args[0] if args else kwargs["hidden_states"])))

    if site == Site(Stream.RESIDUAL, -1):
        return adapter.layers[0].register_forward_pre_hook(on_input, with_kwargs=True)
    if site.stream is Stream.RESIDUAL:
        return adapter.layers[layer].register_forward_hook(on_output)
    if site.stream is Stream.ROUTER_LOGITS:
        return adapter.module(layer, str(family.router)).register_forward_hook(on_output)
    if site.stream in _NORMS and (norm := adapter.norm(layer, _NORMS[site.stream])) is not None:
        return norm.register_forward_hook(on_output)
    if site.stream in _NORMS:
        plain = Stream.ATTN_OUTPUT if site.stream is Stream.ATTN_UPDATE else Stream.MLP_OUTPUT
        return hook(adapter, Site(plain, layer), watch)
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
