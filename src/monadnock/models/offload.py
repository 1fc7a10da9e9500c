"""Weights that accelerate keeps on the CPU or on disk: reach one, and hold those of a part while it is used."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from accelerate.utils import OffloadedWeightsLoader
from safetensors import SafetensorError
from torch import Tensor, nn

from monadnock.errors import MonadnockError, first_line


def present(module: nn.Module, name: str) -> Tensor | None:
    """Return a module's parameter, or what stands for it where accelerate has moved it away; None if it has none.

    A weight kept on the CPU is the model's own memory; one kept on disk is a copy, and writing to it changes nothing.

    Raises:
        MonadnockError: if the parameter is on the meta device and nothing tells where its values are.
    """
    tensor: Any = getattr(module, name, None)
    if tensor is None or not tensor.is_meta:
        return tensor
    for hook in _hooks(module):
        if hook.weights_map is not None:
            return hook.weights_map[name]
    raise MonadnockError(f"The {name} of a {type(module).__name__} has no values (meta device); load the model whole.")


def is_away(*modules: nn.Module) -> bool:
    """Say whether any weight of these modules is not in memory while they do not run."""
    return any(parameter.is_meta for module in modules for parameter in module.parameters())


@contextmanager
def held(*modules: nn.Module) -> Iterator[None]:
    """Keep the weights of modules in memory inside the block, so that however often they are used each is read once.

    Nothing happens to modules whose weights are in memory anyway.

    Args:
        *modules: with all that is in them.

    Example:
        >>> with held(adapter.layers[11]):  # doctest: +SKIP
        ...     adapter.weight(11, "down").read()
    """
    loaded: list[tuple[nn.Module, Any]] = []
    try:
        for module in dict.fromkeys(part for each in modules for part in each.modules()):
            for hook in _hooks(module):
                if hook.offload:
                    loaded.append((module, hook))
                    _fetch(hook, module)
                    hook.offload = False
        yield
    finally:
        for module, hook in loaded:
            hook.offload = True
            hook.post_forward(module, None)
        if loaded:
            _give_back()


def _give_back() -> None:
    """Have the C library return freed memory to the system: glibc keeps blocks below 32 MB, layer after layer."""
    with suppress(OSError, AttributeError, TypeError):  # there is no such function elsewhere
        ctypes.CDLL(None).malloc_trim(0)


def memory() -> int | None:
    """Return how many bytes of memory there are for this process, the limit of its container included, if known."""
    found = []
    with suppress(OSError, ValueError, AttributeError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for place in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):  # as containers see them
        with suppress(OSError, ValueError):  # "max"
            found.append(int(Path(place).read_text(encoding="ascii")))
    return min(found, default=None)


def _fetch(hook: Any, module: nn.Module) -> None:
    """Let accelerate load a module's weights."""
    try:
        hook.pre_forward(module)
    except (OSError, SafetensorError) as error:
        raise MonadnockError(
            f"A weight of the checkpoint cannot be read any more ({first_line(error)}); see that its files are still "
            "there and whole, then start again."
        ) from error


class _Remade(OffloadedWeightsLoader):
    """Reads what was written to a folder into memory of its own, as if it had been made there.

    In a file it stands at any address, and a product of matrices is rounded otherwise where that is no multiple of 64.
    """

    folder: str

    def __getitem__(self, key: str) -> Tensor:
        tensor = super().__getitem__(key)
        written = self.index.get(key, {}).get("safetensors_file", "").startswith(self.folder)
        return tensor.clone() if written else tensor


def read_as(model: Any, dtype: torch.dtype, folder: str) -> None:
    """Have the weights that stay on disk turned into a dtype whenever they are read; loading so would read them all.

    Args:
        model: a transformers model that was loaded in the dtype of its checkpoint, changed in place.
        dtype: of what floats it has from now on.
        folder: where what the checkpoint does not hold as the model has it was written to.
    """
    own = model.dtype
    with init_empty_weights(include_buffers=False):
        fresh = type(model)._from_config(model.config, dtype=dtype)
    for hook in (hook for module in model.modules() for hook in _hooks(module) if hook.weights_map is not None):
        hook.weights_map.dataset.__class__, hook.weights_map.dataset.folder = _Remade, folder  # one for all of them
    for name, module in model.named_modules():
        made = fresh.get_submodule(name)
        for leaf, buffer in module.named_buffers(recurse=False):
            if leaf in module._non_persistent_buffers_set:  # constants such as Gemma's scale, which were rounded
                module._buffers[leaf] = made.get_buffer(leaf)
            elif buffer.dtype == own:
                module._buffers[leaf] = buffer.to(dtype)
        for leaf, parameter in [*module.named_parameters(recurse=False)]:
            if parameter.dtype == own:
                module._parameters[leaf] = nn.Parameter(parameter.to(dtype), requires_grad=False)
                for hook in _hooks(module):
                    kept = hook.weights_map
                    kept.dataset.index[kept.prefix + leaf]["dtype"] = str(dtype).removeprefix("torch.")
    model.config.dtype = dtype


def _hooks(module: nn.Module) -> list[Any]:
    """Return the hooks of accelerate that fetch a module's weights before it runs, and let them go afterwards."""
    hook = getattr(module, "_hf_hook", None)
    return [each for each in getattr(hook, "hooks", [hook]) if hasattr(each, "weights_map")]
