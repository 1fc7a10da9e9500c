"""Which component and which layer a parameter belongs to, by its identity rather than by its name."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from monadnock.models.adapter import Adapter
from monadnock.models.offload import is_away, present
from monadnock.models.weight import ROLES


def tied(adapter: Adapter) -> bool:
    """Say whether the unembedding is the embedding itself."""
    first, last = adapter.model.get_input_embeddings(), adapter.model.get_output_embeddings()
    if last is None or last.weight is first.weight:
        return last is not None
    return is_away(first, last) and bool(getattr(adapter.config, "tie_word_embeddings", False))  # accelerate parts them


def each_parameter(adapter: Adapter) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield (name, parameter) of all parameters, a tied one once; one that accelerate has moved away has no values."""
    last = adapter.model.get_output_embeddings()
    skipped = id(last.weight) if tied(adapter) and is_away(adapter.model.get_input_embeddings(), last) else None
    for name, parameter in adapter.model.named_parameters():
        if id(parameter) != skipped:
            yield name, parameter


def components(adapter: Adapter) -> Iterator[tuple[str, int | None, int]]:
    """Yield (component, layer, count) for all parameters, each parameter once, fused ones cut into their parts.

    The counts sum to the number of parameters of the model.
    """
    owner = _owners(adapter)
    layer_of = {id(p): index for index, layer in enumerate(adapter.layers) for p in layer.parameters()}
    for name, parameter in each_parameter(adapter):
        layer = layer_of.get(id(parameter))
        known = owner.get(id(parameter), {})
        rest = parameter.numel() - sum(known.values())
        if rest:
            known = known | {"bias" if "bias" in name.rpartition(".")[2] else "other": rest}
        for component, count in known.items():
            yield component, layer, count


def modules_at(adapter: Adapter, layer: int) -> list[nn.Module]:
    """Return the modules that hold the weights of one step through the model.

    Args:
        adapter: the model.
        layer: 0-based decoder layer; -1 for the embeddings and what else stands before the first, `num_layers` for what
            is behind the last: the final norm and the unembedding.
    """
    if 0 <= layer < adapter.num_layers:
        return [adapter.layers[layer]]
    behind = [each for each in (adapter.norm(None, "final"), adapter.model.get_output_embeddings()) if each is not None]
    if layer == adapter.num_layers:
        return behind
    inside = {module for block in adapter.layers for module in block.modules()} | set(behind)
    return [each for each in adapter.model.modules() if each not in inside and [*each.parameters(recurse=False)]]


def parameters(adapter: Adapter, at: int | None = None) -> Iterator[tuple[int | None, str, Tensor]]:
    """Yield (layer, name, values) of every parameter, each once, also of those that accelerate has moved away.

    Args:
        adapter: the model.
        at: only those of one step, see `modules_at`.
    """
    layer_of = {id(p): index for index, layer in enumerate(adapter.layers) for p in layer.parameters()}
    wanted = _identities(adapter, at) if at is not None else None
    for name, parameter in each_parameter(adapter):
        if wanted is not None and id(parameter) not in wanted:
            continue
        owner, _, leaf = name.rpartition(".")
        values = present(adapter.model.get_submodule(owner), leaf)
        if values is not None:
            yield layer_of.get(id(parameter)), name, values.detach()


def _identities(adapter: Adapter, at: int) -> set[int]:
    found = {id(each) for module in modules_at(adapter, at) for each in module.parameters()}
    return found - _identities(adapter, -1) if at == adapter.num_layers else found  # a tied weight stands before


def _owners(adapter: Adapter) -> dict[int, dict[str, int]]:
    """Map the identity of a parameter to the components in it and their sizes."""
    found: dict[int, dict[str, int]] = {}

    def add(parameter: Tensor | None, component: str, count: int) -> None:
        if parameter is not None:
            found.setdefault(id(parameter), {})[component] = count

    model, family = adapter.model, adapter.family
    for component, module in (
        ("embedding", model.get_input_embeddings()),
        ("unembedding", None if tied(adapter) else model.get_output_embeddings()),
        ("position", adapter.decoder.get_submodule(family.positions) if family.positions else None),
    ):
        if module is not None:
            weight: Any = module.weight
            add(weight, component, weight.numel())
    for layer in range(adapter.num_layers):
        for role in ROLES:
            if adapter.has(role):
                experts = adapter.num_experts if role in ("gate", "up", "down") else None
                stored = adapter.stored(layer, role)
                size = adapter.cut(stored, role, 0 if experts else None).read().numel()
                add(stored, role, size * (experts or 1))
        if family.router:
            weight = adapter.module(layer, family.router).weight
            add(weight, "router", weight.numel())
    for module in _norm_modules(adapter):
        for parameter in module.parameters(recurse=False):
            add(parameter, "norm", parameter.numel())
    return found


def _norm_modules(adapter: Adapter) -> Iterator[nn.Module]:
    places = [(layer, name) for layer in range(adapter.num_layers) for name in adapter.family.norms]
    for layer, name in [*places, (None, "final")]:
        module = adapter.norm(layer, name)
        if module is not None:
            yield module
