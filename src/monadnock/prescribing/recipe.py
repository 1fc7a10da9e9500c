"""A recipe for llm-compressor: what is rounded, how, and what is kept; written as YAML, and read back."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError

from monadnock.errors import MonadnockError, nearest
from monadnock.findings.pages import write_file

Strategy = Literal["tensor", "row", "group"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
MARK = "# monadnock prescribe\n"  # the first line, by which a recipe may be replaced
STAGE, MODIFIERS, MODIFIER = "quant_stage", "quant_modifiers", "QuantizationModifier"
LINEAR = "Linear"  # a target that stands for every linear layer
PRESET = re.compile(r"W([2-8])A16", re.IGNORECASE)
PRESET_GROUP = 128  # columns of a group in these presets of compressed-tensors 0.20
THEIRS: dict[str, Strategy] = {"tensor": "tensor", "channel": "row", "group": "group"}
OURS: dict[Strategy, str] = {ours: theirs for theirs, ours in THEIRS.items()}


@dataclass(frozen=True)
class Recipe:
    """What is rounded, how, and what is kept in 16 bits.

    Attributes:
        bits: of a rounded weight, 2 to 8.
        strategy: what shares a scale: the tensor, a row (llm-compressor calls it channel), or a group of a row.
        group: columns of a group; None where the strategy is not group.
        targets: what is rounded: names of modules, patterns `re:...`, or Linear for every linear layer.
        ignore: what is kept all the same: names of modules, or patterns.

    Raises:
        MonadnockError: if these do not go together.

    Example:
        >>> recipe = Recipe(4, "row", ignore=("lm_head", r"re:.*\\.11\\.mlp\\.down_proj$"))
        >>> recipe.keeps("model.layers.11.mlp.down_proj"), recipe.keeps("model.layers.12.mlp.down_proj")
        (True, False)
    """

    bits: int
    strategy: Strategy
    group: int | None = None
    targets: tuple[str, ...] = (LINEAR,)
    ignore: tuple[str, ...] = ("lm_head",)

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise MonadnockError(f"{self.bits} bits were asked; a recipe has 2 to 8.")
        if self.strategy not in STRATEGIES:
            raise MonadnockError(f"There is no granularity {self.strategy!r}: {nearest(self.strategy, STRATEGIES)}")
        if (self.strategy == "group") != (self.group is not None) or (self.group is not None and self.group < 1):
            raise MonadnockError(f"Granularity {self.strategy} was asked with groups of {self.group} columns.")
        for entry in (*self.targets, *self.ignore):
            _pattern(entry)

    def keeps(self, name: str) -> bool:
        """Say whether a linear layer stays as it is.

        Args:
            name: of the module in the checkpoint, as `model.layers.11.mlp.down_proj`.
        """
        return not _any(self.targets, name) or _any(self.ignore, name)

    def __str__(self) -> str:
        how = {"tensor": "one scale per tensor", "row": "one scale per row"}
        return f"{self.bits} bits, {how.get(self.strategy, f'one scale per {self.group} columns of a row')}"


def _pattern(entry: str) -> re.Pattern[str]:
    """Return what an entry matches from the start of a name on, as compressed-tensors reads it."""
    if not entry.startswith("re:"):
        return re.compile(re.escape(entry) + r"\Z")
    try:
        return re.compile(entry.removeprefix("re:"))
    except (re.error, RecursionError, OverflowError) as error:
        raise MonadnockError(f"{entry[:80]!r} is no regular expression ({error}); correct it in the recipe.") from None


def _any(entries: tuple[str, ...], name: str) -> bool:
    return any(entry == LINEAR or _pattern(entry).match(name) for entry in entries)


def write_recipe(recipe: Recipe, path: Path, notes: tuple[str, ...] = ()) -> None:
    """Write a recipe as YAML that llm-compressor reads.

    Args:
        recipe: what to write.
        path: the file.
        notes: lines of comment for its head.

    Raises:
        MonadnockError: if it cannot be written.
    """
    weights: dict[str, Any] = {"num_bits": recipe.bits, "type": "int", "symmetric": True}
    weights["strategy"] = OURS[recipe.strategy]
    if recipe.group is not None:
        weights["group_size"] = recipe.group
    scheme = {"targets": [*recipe.targets], "weights": weights}
    modifier = {"ignore": [*recipe.ignore], "config_groups": {"group_0": scheme}}
    body = yaml.safe_dump({STAGE: {MODIFIERS: {MODIFIER: modifier}}}, sort_keys=False, width=120)
    head = "".join(f"# {line.encode('unicode_escape').decode('ascii')}\n" for line in notes)
    write_file(path, [(MARK + head + body).encode()], what="recipe", verb="prescribe", mark=MARK.strip().encode())


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Weights(_Part):
    num_bits: StrictInt = Field(8, ge=2, le=8)
    type: Literal["int"] = "int"
    symmetric: Literal[True] = True
    strategy: Literal["tensor", "channel", "group"] | None = None
    group_size: StrictInt | None = Field(None, ge=-1)
    dynamic: Literal[False] = False
    observer: Literal["minmax", "memoryless_minmax", "static_minmax"] | None = None
    actorder: None = None
    block_structure: None = None
    scale_dtype: None = None
    zp_dtype: Any = None
    observer_kwargs: dict[str, Any] | None = Field(None, max_length=0)


class _Scheme(_Part):
    targets: list[str] = Field(min_length=1)
    weights: _Weights
    input_activations: None = None
    output_activations: None = None
    format: str | None = None


class _Modifier(_Part):
    targets: str | list[str] = Field(default_factory=lambda: [LINEAR])
    ignore: list[str] = Field(default_factory=list)
    scheme: str | None = None
    config_groups: dict[str, _Scheme] | None = Field(None, min_length=1, max_length=1)
    kv_cache_scheme: None = None
    weight_observer: Literal["minmax", "memoryless_minmax", "static_minmax"] | None = None
    bypass_divisibility_checks: StrictBool = False
    requires_calibration_data: StrictBool = False
    group: str | None = None


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe that `monadnock prescribe` or somebody else wrote for llm-compressor.

    It has to say what monadnock's own compressors can do: one QuantizationModifier, one scheme of symmetric integers
    for weights (W8A16, W4A16 and the like, or one of `config_groups`), and nothing for activations or the KV cache.

    Args:
        path: a YAML or JSON file.

    Raises:
        MonadnockError: if it cannot be read, or asks for anything else.

    Example:
        >>> read_recipe("demo/recipe.yaml").bits  # doctest: +SKIP
        4
    """
    path = Path(path)
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MonadnockError(f"{str(path)[:200]} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MonadnockError(f"{path} is no YAML ({reason}); give a recipe, as `monadnock prescribe` writes.") from None
    name, asked = _modifier(path, found)
    if name != MODIFIER:
        raise MonadnockError(f"{path} asks for a {name}, which monadnock has not; it reads a {MODIFIER}.")
    try:
        return _recipe(_Modifier.model_validate(asked))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise MonadnockError(
            f"{path} asks for something that monadnock does not do: {place}: {first['msg']}; "
            "it rounds weights to symmetric integers, with one scale per tensor, row or group."
        ) from None
    except MonadnockError as error:
        raise MonadnockError(f"{path} cannot be followed: {error}") from None


def _modifier(path: Path, found: Any) -> tuple[str, Any]:
    """Return the one modifier of a recipe, and what it is given."""
    stages = [value for key, value in _items(found) if key.endswith("_stage")]
    groups = [value for stage in stages for key, value in _items(stage) if key.endswith("_modifiers")]
    modifiers = [each for group in groups for each in _items(group)]
    if len(modifiers) != 1:
        names = ", ".join(name for name, _ in modifiers) or "none"
        raise MonadnockError(
            f"{path} has to hold one {MODIFIER} under {STAGE}, {MODIFIERS}; found: {names[:200]}. "
            "`monadnock prescribe` writes such a recipe."
        )
    return modifiers[0]


def _items(found: Any) -> list[tuple[str, Any]]:
    return [(str(key), value) for key, value in found.items()] if isinstance(found, dict) else []


def _recipe(asked: _Modifier) -> Recipe:
    if (asked.scheme is None) == (asked.config_groups is None):
        raise MonadnockError("give either scheme or config_groups.")
    if asked.config_groups is None:
        preset = PRESET.fullmatch(str(asked.scheme))
        if preset is None:
            raise MonadnockError(f"scheme {asked.scheme!r} is not one of W2A16 to W8A16.")
        targets = [asked.targets] if isinstance(asked.targets, str) else asked.targets
        return Recipe(int(preset[1]), "group", PRESET_GROUP, tuple(targets), tuple(asked.ignore))
    (scheme,) = asked.config_groups.values()
    size = scheme.weights.group_size
    inferred = "tensor" if size is None else "channel" if size == -1 else "group"
    strategy = THEIRS[scheme.weights.strategy or inferred]
    group = size if strategy == "group" or (size is not None and size > 0) else None
    return Recipe(scheme.weights.num_bits, strategy, group, tuple(scheme.targets), tuple(asked.ignore))
