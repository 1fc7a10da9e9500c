"""From matrices that are kept to the entries of a recipe's ignore list."""

import re
from collections.abc import Callable, Iterable

from monadnock.prescribing.keeping import FUSED

PLAIN = re.compile(r"[A-Za-z_]\w*(\.\w+)+", re.ASCII)
HEAD = "lm_head"
CONV1D = (
    "gpt2",
    "monadnock_gpt2",
)  # families whose matrices llm-compressor does not see: no layer of theirs is a Linear
OUTSIDE = {"opt": (r"re:.*\.project_(in|out)$",)}  # linear layers outside the blocks, beside the head


def literal(name: str) -> str:
    """Return an entry that matches this name and nothing else, whatever is in it.

    A plain entry that is no path could be read as the name of a class, or as a pattern.

    Example:
        >>> literal("model.layers.0.mlp.up_proj"), literal("Linear")
        ('model.layers.0.mlp.up_proj', 're:Linear$')
    """
    return name if PLAIN.fullmatch(name) else f"re:{re.escape(name)}$"


def experts_of(name: str) -> str:
    """Return an entry for all experts of a layer, held in one tensor or one by one.

    Args:
        name: of any of their matrices, as `model.layers.0.mlp.experts.down_proj`, or `...experts.3.w1`.

    Example:
        >>> experts_of("model.layers.0.mlp.experts.down_proj")
        're:model\\\\.layers\\\\.0\\\\.mlp\\\\.experts\\\\.'
    """
    parent = re.sub(r"\.\d+$", "", name.rpartition(".")[0])
    return f"re:{re.escape(parent)}\\."


def by_path(layer: int, path: str, *, experts: bool = False) -> str:
    """Return an entry for a module of a decoder layer by its path under the layer.

    Example:
        >>> by_path(11, "mlp.down_proj")
        're:.*\\\\.11\\\\.mlp\\\\.down_proj$'
    """
    if experts:
        return rf"re:.*\.{layer}\.{re.escape(path.rpartition('.')[0])}\."
    return rf"re:.*\.{layer}\.{re.escape(path)}$"


def ignored(kept: Iterable[dict], family: str, path: Callable[[str], str | None]) -> tuple[str, ...]:
    """Return the ignore list of a recipe.

    Args:
        kept: rows of `prescriptions` with action keep_module.
        family: model type.
        path: gives the path of a role under the layer, for modules without a name; only called for these.
    """
    kept = list(kept)
    entries = [HEAD, *OUTSIDE.get(family, ())]
    named = {(row["layer"], row["module"]) for row in kept}
    for row in kept:
        experts = row["expert"] is not None
        if row["name"]:
            entries.append(experts_of(row["name"]) if experts else literal(row["name"]))
        else:
            entries.append(_unnamed(row["layer"], row["module"], path, experts=experts))
        siblings = () if experts else FUSED.get(row["module"], ())
        missing = [role for role in sorted(siblings) if (row["layer"], role) not in named]
        entries += [_unnamed(row["layer"], role, path) for role in missing]
    return tuple(dict.fromkeys(entry for entry in entries if entry))


def _unnamed(layer: int, module: str, path: Callable[[str], str | None], *, experts: bool = False) -> str:
    found = path(module)
    return by_path(layer, found, experts=experts) if found else ""
