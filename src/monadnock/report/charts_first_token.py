"""Section on the first token of a prompt: how much attention each head gives it from each token, in three layers."""

import polars as pl

from monadnock.report import text
from monadnock.report.parts import Block, Findings, Key, Section, meaning
from monadnock.report.source import peak
from monadnock.report.theme import GREY
from monadnock.report.token_maps import Scale, token_rows

_PROMPT = 24  # characters of a prompt above its map
_SHOWN = {"token": "token", "position": "position", "head": "head", "attention to the first token": "mass"}
_END = Key("ends a sentence", GREY, "flag")


def first_token(findings: Findings) -> list[Block]:
    """Draw a map of heads and tokens for each of three layers, prompts below each other."""
    table = findings["first_token"].drop_nulls(["layer", "head", "position"])
    if table.is_empty():
        return []
    table = table.with_columns(pl.col("prompt", "token").fill_null(""))
    later = table.filter(pl.col("position") > 0, pl.col("mass").is_finite())
    means = later.group_by("layer").agg(pl.col("mass").mean()).sort("mass", "layer", descending=[True, False])
    layers = table["layer"].unique().sort().to_list()
    most = means["layer"][0] if means.height else layers[-1]
    return [_map(layer, table.filter(layer=layer), layer == most) for layer in spread(layers, most)]


def spread(layers: list[int], most: int) -> list[int]:
    """Return three layers: one of interest, and two others early, in the middle or late, away from it.

    Example:
        >>> spread(list(range(30)), 24), spread([0, 1], 1)
        ([5, 14, 24], [0, 1])
    """
    if len(layers) <= 3:
        return layers
    others = [layers[round(part * (len(layers) - 1) / 6)] for part in (1, 3, 5)]
    nearest = min(others, key=lambda layer: abs(layer - most))
    return sorted({*others, most} - ({nearest} - {most}))


def _map(layer: int, rows: pl.DataFrame, most: bool) -> Block:
    panels = [
        (_name(prompt, bos), part)
        for (prompt, bos), part in rows.partition_by("prompt", "bos", as_dict=True, maintain_order=True).items()
    ]
    plot = token_rows(panels, "head", "mass", _SHOWN, Scale((0.0, 1.0)), x_label="head (0-based)", dots="ends_sentence")
    later = rows.filter(pl.col("position") > 0)
    alt = peak(later, "mass", "attention to the first token from a later one", "token", "head")
    says = "Rows are tokens, columns are heads: the attention that the first token gets from there."
    return Block(
        f"Layer {layer}" + ", the most attention to the first token" * most,
        says + " Of all layers, this one gives it the most." * most,
        meaning("first_token", "mass", "ends_sentence"),
        plot,
        (_END,),
        f"Map of tokens and heads. {alt}",
    )


def _name(prompt: str, bos: bool | None) -> str:
    return f"“{text.line(prompt, _PROMPT)}”" + ("" if bos is None else ", BOS in front" if bos else ", no BOS")


SECTIONS = (
    Section(
        "first-token",
        "Attention to the first token",
        "How much attention the first token of a prompt gets from the others, with the ends of sentences marked.",
        ("first_token",),
        "The table has no rows: no attention of a prompt was kept.",
        first_token,
    ),
)
