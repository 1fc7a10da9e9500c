"""Reach a weight that accelerate keeps on the CPU or on disk while the model is not running."""

from typing import Any

from torch import Tensor, nn

from monadnock.errors import MonadnockError


def present(module: nn.Module, name: str) -> Tensor | None:
    """Return a module's parameter, or what stands for it where accelerate has moved it away; None if it has none.

    A weight kept on the CPU is the model's own memory; one kept on disk is a copy, and writing to it changes nothing.

    Raises:
        MonadnockError: if the parameter is on the meta device and nothing tells where its values are.
    """
    tensor: Any = getattr(module, name, None)
    if tensor is None or not tensor.is_meta:
        return tensor
    hook = getattr(module, "_hf_hook", None)
    for each in getattr(hook, "hooks", [hook]):
        values = getattr(each, "weights_map", None)
        if values is not None:
            return values[name]
    raise MonadnockError(f"The {name} of a {type(module).__name__} has no values (meta device); load the model whole.")
