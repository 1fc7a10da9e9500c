"""Which component and which layer a parameter belongs to, by its identity rather than by its name."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from monadnock.models.adapter import Adapter
from monadnock.models.offload import present
from monadnock.models.weight import ROLES


def tied(adapter: Adapter) -> bool:
    """Say whether the unembedding is the embedding itself."""
    output = adapter.model.get_output_embeddings()
    return output is not None and output.weight is adapter.model.get_input_embeddings().weight


def components(adapter: Adapter) -> Iterator[tuple[str, int | None, int]]:
    """Yield (component, layer, count) for all parameters, each parameter once, fused ones cut into their parts.

    The counts sum to the number of parameters of the model.
    """
    owner = _owners(adapter)
    layer_of = {id(p): index for index, layer in enumerate(adapter.layers) for p in layer.parameters()}
    for name, parameter in adapter.model.named_parameters():  # a shared parameter comes once
        layer = layer_of.get(id(parameter))
        known = owner.get(id(parameter), {})
        rest = parameter.numel() - sum(known.values())
        if rest:
            known = known | {"bias" if "bias" in name.rpartition(".")[2] else "other": rest}
        for component, count in known.items():
            yield component, layer, count


def parameters(adapter: Adapter) -> Iterator[tuple[int | None, str, Tensor]]:
    """Yield (layer, name, values) of every parameter, each once, also of those that accelerate has moved away."""
    layer_of = {id(p): index for index, layer in enumerate(adapter.layers) for p in layer.parameters()}
    for name, parameter in adapter.model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        values = present(adapter.model.get_submodule(owner), leaf)
        if values is not None:
            yield layer_of.get(id(parameter)), name, values.detach()


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
