"""Section on the router of mixture-of-experts layers."""

import polars as pl

from monadnock.report.maps import layer_map
from monadnock.report.parts import Block, Findings, Section, meaning
from monadnock.report.source import peak

_INPUTS = {"start": "the start token alone", "text": "the text, mean over its tokens"}


def router(findings: Findings) -> list[Block]:
    """Draw the router's probability of every expert by layer (maps), for the start token and for the text."""
    blocks = []
    table = findings["router"].drop_nulls(["layer", "expert", "input"])
    for name in sorted(table["input"].unique()):
        frame = table.filter(pl.col("input") == name)
        shown = {"layer": "layer", "expert": "expert", "probability": "probability"}
        blocks.append(
            Block(
                f"Router on {name}",
                f"The router's probability of each expert by layer, on {_INPUTS.get(name, name)}.",
                meaning("router", "input", "probability"),
                layer_map(frame, "expert", "expert", "probability", shown, limits=(0.0, 1.0)),
                alt=f"Map of layers and experts. {peak(frame, 'probability', 'probability', 'layer', 'expert')}",
            )
        )
    return blocks


SECTIONS = (
    Section(
        "router",
        "Router",
        "Which experts the router picks, above all for the start token.",
        ("router",),
        "",
        router,
    ),
)
