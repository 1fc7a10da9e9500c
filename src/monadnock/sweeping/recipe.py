"""What a recipe file says: a verb, the settings that all cells have, and the cells."""

import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from monadnock.arguments import read_arguments
from monadnock.errors import MonadnockError, nearest
from monadnock.models import load

_HOMES = {
    "attack": ("monadnock.attacking", "attack"),
    "compress": ("monadnock.compression.measuring", "compress"),
    "explain": ("monadnock.explaining", "explain"),
    "finetune": ("monadnock.training", "finetune"),
    "pretrain": ("monadnock.pretraining", "pretrain"),
    "scan": ("monadnock.scanning", "scan"),
    "sensitivity": ("monadnock.sensitivity", "measure"),
}
LOADING = frozenset(inspect.signature(load).parameters) - {"model"}
_HELD = frozenset({"tokenizer", "progress", "options", "force"})  # said elsewhere, or not in a file
_MOST = 10_000  # cells
_WRONG = {  # what pydantic finds, in words
    "missing": "is missing",
    "extra_forbidden": "is no key of a recipe",
    "string_type": "is not a text",
    "dict_type": "is not a list of names with values",
    "list_type": "is not a list",
    "model_type": "is not a list of names with values",
    "literal_error": "is not known, give cpus or gpus",
    "float_parsing": "is not a number",
    "float_type": "is not a number",
    "value_error": "is not 0 or a number of at least 0.0001",
    "finite_number": "is not 0 or a number of at least 0.0001",
}


def _amount(value: float) -> float:
    """Refuse what Ray does not take as an amount."""
    if 0 != value < 0.0001:
        raise ValueError
    return value


_Amount = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_amount)]


class SweepRecipe(BaseModel):
    """One verb over a grid of settings, read from YAML with `read_recipe`.

    Attributes:
        verb: attack, compress, explain, finetune, pretrain, scan or sensitivity.
        about: what it is for, in a sentence.
        settings: what all cells have: `model` (pretrain has none), `out`, and any argument of the verb's function.
        resources: what a cell needs of a Ray cluster: `cpus` (1) and `gpus` (1 where there are any).
        cells: each gives further settings; where one is a list, the cell stands for one cell for each value, and two
            lists for all pairs. Without cells there is one, of the settings alone.

    Example:
        >>> recipe = SweepRecipe(verb="attack", settings={"model": "smollm2"}, cells=[{"seed": [0, 1]}])
        >>> recipe.grid()
        [{'model': 'smollm2', 'seed': 0}, {'model': 'smollm2', 'seed': 1}]
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    verb: str
    about: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    resources: dict[Literal["cpus", "gpus"], _Amount] = Field(default_factory=dict)
    cells: list[dict[str, Any]] = Field(default_factory=list)

    @property
    def function(self) -> Callable[..., Any]:
        """What runs a cell."""
        if self.verb not in _HOMES:
            raise MonadnockError(f"No sweep of {self.verb!r} is possible: {nearest(self.verb, _HOMES)}")
        module, name = _HOMES[self.verb]
        return getattr(import_module(module), name)

    @property
    def has_model(self) -> bool:
        """Whether the verb is about a model that is there already."""
        return "model" in inspect.signature(self.function).parameters

    def grid(self) -> list[dict[str, Any]]:
        """Return the settings of every cell, in the order of the file; the last list changes first.

        Raises:
            MonadnockError: on a verb that cannot be swept, or a setting of another type than its function takes.
        """
        cells = [read_arguments(load, cell) for cell in self.written()] if self.has_model else self.written()
        return [read_arguments(self.function, cell) for cell in cells]

    def written(self) -> list[dict[str, Any]]:
        """Return what `grid` does, with values as they are in the file."""
        return [
            self.settings | dict(zip(cell, values, strict=True))
            for cell in self.cells or [{}]
            for values in itertools.product(*(each if isinstance(each, list) else [each] for each in cell.values()))
        ]

    def told(self) -> list[str]:
        """Return of every cell the settings that are not those of all cells, in words."""
        told = [", ".join(f"{name} {value}" for name, value in cell.items()) for cell in self.own()]
        return [each or "the settings alone" for each in told]

    def own(self) -> list[dict[str, Any]]:
        """Return of every cell the settings that are not those of all cells."""
        grid = self.grid()
        shared = {name for name in self.settings if all(each[name] == grid[0][name] for each in grid)}
        return [{name: value for name, value in cell.items() if name not in shared} for cell in grid]


def read_recipe(path: str | Path, changes: Mapping[str, Any] | None = None) -> SweepRecipe:
    """Read a recipe and check it against the arguments of the verb's function.

    Args:
        path: a YAML file.
        changes: settings in place of the recipe's. Where a cell has the setting too, the change holds there as well:
            cells that are then alike are one.

    Raises:
        MonadnockError: if it cannot be read, or has a key, verb or setting that does not exist, or asks for what a file
            may not ask for: code that comes with a checkpoint, or an `out` outside the working folder.

    Example:
        >>> read_recipe("recipes/macdrop_scope.yaml", {"model": "smollm2"}).verb  # doctest: +SKIP
        'finetune'
    """
    path, changes = Path(path), dict(changes or {})
    recipe = _parse(path)
    known = _known(recipe)
    count = sum(math.prod(len(each) for each in cell.values() if isinstance(each, list)) for cell in recipe.cells)
    if count > _MOST:
        raise MonadnockError(f"{path} has {count} cells; at most {_MOST} can be run.")
    for name in itertools.chain(recipe.settings, *recipe.cells, changes):
        if name not in known:
            raise MonadnockError(
                f"{path} or a change sets {name!r}, which {recipe.verb} has not: {nearest(name, known)}"
            )
    _check_file(path, recipe)
    cells = [{name: value for name, value in cell.items() if name not in changes} for cell in recipe.cells]
    single = [cell for place, cell in enumerate(cells) if cell not in cells[:place]]
    changed = recipe.model_copy(update={"settings": recipe.settings | changes, "cells": single})
    try:
        grid = changed.grid()
    except MonadnockError as error:
        raise MonadnockError(f"{path}: {error}") from error
    if not grid:
        raise MonadnockError(f"{path} has 0 cells: a list without values stands for none.")
    if changed.has_model and not all(cell.get("model") for cell in grid):
        raise MonadnockError(f"{path} names no model; add one to its settings, or --set model=NAME.")
    for name, each in inspect.signature(recipe.function).parameters.items():
        if name in known and each.default is each.empty and not all(name in cell for cell in grid):
            raise MonadnockError(f"{path} gives no {name}, which {recipe.verb} needs; add it, or --set {name}=VALUE.")
    return changed


def _parse(path: Path) -> SweepRecipe:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "it is not YAML"
        raise MonadnockError(f"Recipe {path} cannot be read ({reason}); give a YAML file.") from error
    if isinstance(content, dict) and "architecture" in content:
        raise MonadnockError(f"{path} is a recipe of one pretraining: monadnock pretrain --recipe {path}.")
    try:
        return SweepRecipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = " ".join(map(str, first["loc"])) or "the whole"
        wrong = _WRONG.get(first["type"], "is no key, or what stands there is not right")
        raise MonadnockError(
            f"Recipe {path}: {where} {wrong}; it has verb, about, settings, resources and cells."
        ) from error


def _known(recipe: SweepRecipe) -> set[str]:
    """Return the settings that a verb has: what its function takes, and how its model is loaded."""
    return set(inspect.signature(recipe.function).parameters) - _HELD | (LOADING if recipe.has_model else set())


def _check_file(path: Path, recipe: SweepRecipe) -> None:
    """Refuse what only the person who runs a recipe may ask for."""
    for cell in recipe.written():
        if cell.get("trust_remote_code"):
            raise MonadnockError(
                f"{path} asks for trust_remote_code, which a file may not; add --set trust_remote_code=true if you "
                "trust the checkpoint's code."
            )
        out = PurePath(str(cell.get("out") or "."))
        if out.is_absolute() or ".." in out.parts:
            raise MonadnockError(f"{path} writes to {out}, outside the working folder; use --set out=FOLDER for that.")
