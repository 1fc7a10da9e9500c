"""Keep what layers gave for a window, and go on from there without running them again."""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from monadnock.models.adapter import Adapter


def capture(adapter: Adapter, ids: Tensor, layers: Collection[int]) -> dict[int, Any]:
    """Run the model on one window and return what some decoder layers gave, as they gave it.

    Args:
        adapter: the model.
        ids: token ids, [seq].
        layers: 0-based decoder layers.

    Returns:
        By layer: the states [1, seq, d_model], or the tuple that holds them in some families, on the CPU.
    """
    outputs: dict[int, Any] = {}

    def keep(layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            outputs[layer] = copied(output)

        return hook

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(adapter.layers[layer].register_forward_hook(keep(layer)).remove)
        adapter.forward(ids)
    return outputs


@contextmanager
def replay(adapter: Adapter, layer: int, output: Any) -> Iterator[None]:
    """Let the layers up to `layer` give a kept output in place of running, for passes over the same window.

    All that the model does around its layers (masks, rotary, final norm, logits) is done as ever, but token ids are not
    embedded: nobody sees what enters the first layer. Hooks on `layer` see the kept output, and may change it; of the
    earlier layers only the time is saved, and their weights are not read.

    Args:
        adapter: the model.
        layer: 0-based decoder layer; -1 for what enters the first.
        output: what it gave, from `capture`; at -1 the states [1, seq, d_model], or None to replay nothing.

    Example:
        >>> clean = capture(adapter, ids, [10])  # doctest: +SKIP
        >>> with zero_rows(adapter, 11, [1229]), replay(adapter, 10, clean[10]):  # doctest: +SKIP
        ...     logits = adapter.forward(ids)
    """

    def give(*args: Any, **kwargs: Any) -> Any:
        return copied(output, (args[0] if args else kwargs["hidden_states"]).device)

    def skip(*args: Any, **kwargs: Any) -> Any:
        states = args[0] if args else kwargs["hidden_states"]
        return (states, *output[1:]) if isinstance(output, tuple) else states

    embedding = adapter.model.get_input_embeddings()

    def blank(ids: Tensor) -> Tensor:
        return torch.zeros(*ids.shape, embedding.weight.shape[1], dtype=embedding.weight.dtype, device=ids.device)

    def enter(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        states = copied(output, (args[0] if args else kwargs["hidden_states"]).device)
        return ((states, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": states})

    # accelerate puts a function of its own on the modules that it moves
    replaced = [] if output is None else [*list(adapter.layers)[: layer + 1], embedding]
    before = [(module, vars(module).get("forward")) for module in replaced]
    for module in replaced:
        module.forward = blank if module is embedding else give if module is adapter.layers[layer] else skip
    hooks = []
    if layer == -1 and output is not None:
        hooks.append(adapter.layers[0].register_forward_pre_hook(enter, with_kwargs=True, prepend=True))
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()
        for module, forward in before:
            del module.forward
            if forward is not None:
                module.forward = forward


def copied(output: Any, device: Any = "cpu") -> Any:
    """Copy what a layer gave, also on the same device: some layers add to their input in place."""
    if isinstance(output, tuple):
        return tuple(copied(part, device) for part in output)
    return output.to(device, copy=True) if isinstance(output, Tensor) else output
