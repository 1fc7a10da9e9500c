"""Rows of W_up and W_gate that a model reads masked while it trains; its own weights are never written.

Masked copies take the place of the parameters while the FFN of a layer runs, and only in training mode. So the weights
are what they were at any moment that is not inside that FFN: in evaluation, when something is saved, after an
exception. Gradient checkpointing runs the FFN again and so gets the same masks; a backward pass holds the copies.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monadnock.attacking.targets import Aim
from monadnock.errors import MonadnockError, nearest
from monadnock.interventions.changed import check_expert, check_layer
from monadnock.models import Adapter
from monadnock.models.adapter import bare

SCOPES = ("massive", "all", "others")
_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class _Stored:
    """A parameter that is masked: where it lives, and the copy that stands for it."""

    def __init__(self, owner: nn.Module, leaf: str):
        self.owner, self.leaf = owner, leaf
        parameter = owner._parameters[leaf]
        assert parameter is not None, "checked before"
        self.own = parameter
        self.copy = nn.Parameter(self.own.detach().clone(), requires_grad=False)

    def put(self, parameter: nn.Parameter) -> None:
        self.owner._parameters[self.leaf] = parameter


class MaskedRows:
    """Masks rows of W_up and W_gate with a new draw for each step; both have the same mask (oh2024, algorithm 1).

    Args:
        adapter: the model, whose layers may hold adapters of peft.
        aims: layers, and in them the massive rows.
        scope: massive (these rows), all (all rows of both matrices) or others (all but these).

    Raises:
        MonadnockError: if the weights are trained themselves, quantised, spread over devices or moved away, or a layer,
            expert or row does not exist.

    Example:
        >>> rows = MaskedRows(adapter, [Aim(11, None, (1229, 1487))], "massive")  # doctest: +SKIP
        >>> rows.draw(0.8, seed=1)  # doctest: +SKIP
        0.8012
    """

    def __init__(self, adapter: Adapter, aims: Sequence[Aim], scope: str = "massive"):
        if scope not in SCOPES:
            raise MonadnockError(f"There is no scope {scope!r}: {nearest(scope, SCOPES)}")
        self.active = False
        self._stored: dict[tuple[int, str], _Stored] = {}
        self._parts: list[tuple[Tensor, list[tuple[Tensor, Tensor]]]] = []  # rows, and views of own and copy
        self._handles: list[Any] = []
        self._divides = any(len(getattr(module, "lora_magnitude_vector", ())) for module in adapter.model.modules())
        places = [(aim.layer, aim.expert) for aim in aims]
        if doubled := [place for place in places if places.count(place) > 1]:
            raise MonadnockError(f"Layer {doubled[0][0]} was asked twice.")
        try:
            for aim in aims:
                self._add(adapter, aim, scope)
        except BaseException:
            self.remove()
            raise

    def _add(self, adapter: Adapter, aim: Aim, scope: str) -> None:
        views = []
        check_layer(adapter, aim.layer)
        check_expert(adapter, aim.expert)
        if not aim.rows:
            raise MonadnockError(f"No row of layer {aim.layer} was named.")
        for role in ("up", "gate"):
            if adapter.has(role):
                stored = self._store(adapter, aim.layer, role)
                views.append(
                    [adapter.cut(each.detach(), role, aim.expert).strided for each in (stored.own, stored.copy)]
                )
        height = len(views[0][0])
        if wrong := [row for row in aim.rows if not 0 <= row < height]:
            raise MonadnockError(f"Row {wrong[0]} was asked, but layer {aim.layer} has {height}: 0 to {height - 1}.")
        chosen = torch.zeros(height, dtype=torch.bool)
        chosen[list(aim.rows)] = True
        rows = {"massive": chosen, "all": chosen | True, "others": ~chosen}[scope].nonzero().flatten()
        self._parts.append((rows.to(views[0][0].device), [(own, copy) for own, copy in views]))

    def _store(self, adapter: Adapter, layer: int, role: str) -> _Stored:
        """Return what stands for a parameter, and let its FFN read the copy."""
        path = str(getattr(adapter.family, role)).partition("#")[0]
        owner, leaf = _holder(adapter.layers[layer], path)
        key = id(owner), leaf
        if key not in self._stored:
            _check(owner, leaf, f"{path} of layer {layer}")
            stored = self._stored[key] = _Stored(owner, leaf)
            # never the layer itself: checkpointing runs its forward again without its hooks
            ffn = getattr(adapter.layers[layer], path.partition(".")[0])
            self._handles += [
                ffn.register_forward_pre_hook(lambda module, _args: self._enter(module, stored)),
                ffn.register_forward_hook(lambda *_: stored.put(stored.own), always_call=True),
            ]
        return self._stored[key]

    def _enter(self, module: nn.Module, stored: _Stored) -> None:
        """Put what is to be read now: after Ctrl-C in the pass before, for which PyTorch runs no hook, too."""
        stored.put(stored.copy if self.active and module.training else stored.own)

    def draw(self, p: float, seed: int) -> float:
        """Draw new masks, elementwise, and return the share of weights that they drop.

        Args:
            p: probability with which a weight is dropped; nothing is scaled up for it.
            seed: decides the masks, the same on every device and rank.

        Raises:
            MonadnockError: if all of a row is dropped where DoRA divides by its norm.
        """
        generator = torch.Generator().manual_seed(seed)
        dropped = total = 0
        with torch.no_grad():
            for rows, views in self._parts:
                keep = torch.rand(len(rows), views[0][0].shape[1], generator=generator) >= p  # rand is in [0, 1)
                dropped, total = dropped + keep.numel() - int(keep.sum()), total + keep.numel()
                for own, copy in views:
                    masked = torch.where(keep.to(own.device), own[rows], 0)
                    if self._divides and not bool(masked.any(1).all()):
                        raise MonadnockError(
                            f"With p = {p:.3g} all of a row was dropped, and DoRA divides by its norm; take a smaller "
                            "p0, or LoRA."
                        )
                    copy[rows] = masked
        return dropped / max(total, 1)

    def remove(self) -> None:
        """Take all hooks away, and let go of the copies."""
        self.active = False
        for handle in self._handles:
            handle.remove()
        for stored in self._stored.values():
            stored.put(stored.own)
        self._handles, self._stored, self._parts = [], {}, []


def _holder(layer: nn.Module, path: str) -> tuple[nn.Module, str]:
    """Return the module that holds the parameter at a path, inside what peft puts around it, and its name there."""
    part: Any = layer
    for name in path.split("."):
        part = _bare(part)
        if isinstance(part._parameters.get(name), nn.Parameter):
            return part, name
        if not hasattr(part, name):
            return part, name  # packed in a form of its own, which `_check` refuses
        part = getattr(part, name)
    return _bare(part), "weight"


def _bare(part: Any) -> Any:
    part = bare(part)
    if hasattr(part, "modules_to_save"):  # trained whole
        return part.modules_to_save[part.active_adapters[0]]
    return part


def _check(owner: nn.Module, leaf: str, name: str) -> None:
    """Refuse weights that cannot be masked, and say what can."""
    weight = owner._parameters.get(leaf)
    if weight is None or (type(weight) is not nn.Parameter and not hasattr(weight, "placements")):
        raise MonadnockError(
            f"{name} is quantised ({type(weight if weight is not None else owner).__name__}); MacDrop masks single "
            "weights: load the model in bfloat16, float16 or float32."
        )
    if not weight.numel() or weight.is_meta or hasattr(weight, "ds_id") or _spread(weight):
        raise MonadnockError(
            f"{name} is not whole on this device (offloaded, or spread by FSDP or DeepSpeed ZeRO-3); MacDrop needs it "
            "whole: use one device, or DDP."
        )
    if weight.dtype not in _FLOATS or hasattr(weight, "quant_state"):
        kind = str(weight.dtype).removeprefix("torch.")
        raise MonadnockError(
            f"{name} is quantised ({type(weight).__name__}, {kind}); MacDrop masks single weights: load the model in "
            "bfloat16, float16 or float32."
        )
    if weight.requires_grad:
        raise MonadnockError(
            f"{name} is trained itself; MacDrop masks frozen weights only: train adapters (LoRA, DoRA), or freeze it."
        )


def _spread(weight: Tensor) -> bool:
    return hasattr(weight, "placements")  # a DTensor
