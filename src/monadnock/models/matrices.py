"""Weight matrices by name: which ones a user means, and what each is called in the checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

from monadnock.errors import MonadnockError, nearest
from monadnock.models.adapter import Adapter
from monadnock.models.weight import ROLES, WeightView

IN_EXPERTS = ("gate", "up", "down")


@dataclass(frozen=True, order=True)
class Matrix:
    """One weight matrix of a decoder layer.

    Attributes:
        layer: 0-based decoder layer.
        module: q, k, v, o, gate, up or down.
        expert: 0-based expert of a mixture; None in dense layers.

    Example:
        >>> str(Matrix(11, "down"))
        'layer 11 down'
    """

    layer: int
    module: str
    expert: int | None = None

    def __str__(self) -> str:
        return f"layer {self.layer} {self.module}" + ("" if self.expert is None else f" expert {self.expert}")

    @property
    def part(self) -> str:
        """Name of its part of a growing table."""
        return f"{self.layer:03d}-{self.module}" + ("" if self.expert is None else f"-{self.expert:03d}")

    @property
    def columns(self) -> dict[str, int | str | None]:
        """Its columns in a table."""
        return {"layer": self.layer, "module": self.module, "expert": self.expert}

    def weight(self, adapter: Adapter) -> WeightView:
        """Return the matrix [out, in], shared with the model."""
        return adapter.weight(self.layer, self.module, self.expert)

    def name(self, adapter: Adapter) -> str:
        """Return the name in the checkpoint of the module that holds it, as `model.layers.11.mlp.down_proj`."""
        path = str(getattr(adapter.family, self.module)).partition("#")[0]
        layer = adapter.layers[self.layer]
        (prefix,) = (name for name, module in adapter.model.named_modules() if module is layer)
        return f"{prefix}.{path}"


def find_matrices(
    adapter: Adapter, layers: Sequence[int] | None = None, modules: Sequence[str] | None = None
) -> list[Matrix]:
    """Return the matrices that are meant, layer by layer; by default those of all linear layers of the blocks.

    Args:
        adapter: the model.
        layers: 0-based decoder layers.
        modules: roles (q, k, v, o, gate, up, down), the family's own names (self_attn.o_proj, or o_proj; a fused
            matrix stands for its parts), either with `:E` for one expert; or all.

    Raises:
        MonadnockError: on a layer, module or expert that does not exist, with the nearest names.

    Example:
        >>> [str(each) for each in find_matrices(adapter, [11], ["mlp.down_proj"])]  # doctest: +SKIP
        ['layer 11 down']
    """
    layers = range(adapter.num_layers) if layers is None else layers
    if wrong := [layer for layer in layers if not 0 <= layer < adapter.num_layers]:
        raise MonadnockError(
            f"Layer {wrong[0]} was asked, but {adapter.source.id} has the layers 0 to {adapter.num_layers - 1}."
        )
    if not layers or (modules is not None and not modules):
        raise MonadnockError("No layer or no module was named; name some, or all.")
    names = _names(adapter)
    chosen: dict[tuple[str, int | None], None] = {}
    for given in modules or ("all",):
        name, _, number = given.partition(":")
        if name not in names:
            raise MonadnockError(
                f"There is no module {name!r} in {adapter.source.id}: {nearest(name, [*dict.fromkeys(names)])}"
            )
        for role in names[name]:
            for expert in _experts(adapter, role, number):
                chosen[role, expert] = None
    ordered = sorted(chosen, key=lambda each: (ROLES.index(each[0]), -1 if each[1] is None else each[1]))
    return [Matrix(layer, role, expert) for layer in dict.fromkeys(sorted(layers)) for role, expert in ordered]


def _names(adapter: Adapter) -> dict[str, list[str]]:
    """Return what a module may be called, and the roles that this means."""
    roles = [role for role in ROLES if adapter.has(role)]
    found: dict[str, list[str]] = {"all": roles} | {role: [role] for role in roles}
    for role in roles:
        path = str(getattr(adapter.family, role)).partition("#")[0]
        for name in {path, path.rpartition(".")[2]} - set(roles):
            found.setdefault(name, []).append(role)
    return found


def _experts(adapter: Adapter, role: str, number: str) -> list[int | None]:
    count = adapter.num_experts if role in IN_EXPERTS else None
    if not number:
        return [None] if count is None else [*range(count)]
    if count is None:
        raise MonadnockError(f"Expert {number} of {role} was asked, but {adapter.source.id} has no experts there.")
    if not (number.isdecimal() and int(number) < count):
        raise MonadnockError(f"Expert {number} was asked, but {adapter.source.id} has the experts 0 to {count - 1}.")
    return [int(number)]
