"""The section on the start token's states one by one: which of them has the massive activation first and last."""

import polars as pl

from monadnock.findings.summary_explain import finite, massive_features, massive_layer
from monadnock.report.ladders import Mark, ladder
from monadnock.report.parts import Block, Findings, Section, meaning
from monadnock.report.source import peak
from monadnock.report.theme import BLUE, GREEN, GREY, VERMILION

_STATES = {
    "before": "h before",
    "attn_input": "attention in",
    "attn_output": "attention out",
    "attn_update": "attention out, normed",
    "middle": "h + attention",
    "mlp_input": "FFN in",
    "down_proj_input": "x_down",
    "mlp_output": "FFN out",
    "mlp_update": "FFN out, normed",
    "residual": "h after",
}
_SIZES = (
    Mark("median", "median", GREY),
    Mark("top3", "third", GREEN),
    Mark("top2", "second", BLUE),
    Mark("top1", "largest", VERMILION),
)
_AROUND, _BESIDE = 2, 1  # layers on each side of the massive layer, and of other births and deaths
_STAGES = 3


def trace(findings: Findings) -> list[Block]:
    """Draw the largest three and the median |value| of the start token's states in the order in which they are made."""
    states = findings["trace"].drop_nulls(["layer", "state"]).sort("layer", "step")
    known = set(states["layer"])
    if not finite(states, "top1").height:
        return [Block("No states", "No state of the start token is finite.", meaning("trace", "state", "top1"))]
    return [
        _stage(states.filter(pl.col("layer").is_in(layers)), title, says, wide=place == 0)
        for place, (title, says, layers) in enumerate(_stages(findings, states))
        if known & set(layers)
    ]


def _stages(findings: Findings, states: pl.DataFrame) -> list[tuple[str, str, list[int]]]:
    """Return title, sentence and layers of each stage: the massive layer, then where massive features come and go."""
    found: list[tuple[str, str, list[int]]] = []
    drawn: set[int] = set()
    layer = massive_layer(states)
    if layer is not None:
        layers = list(range(max(layer - _AROUND, 0), layer + _AROUND + 1))
        there = findings["massive_weights"]["massive"].any()
        title = f"Massive layer {layer}" if there else f"Layer {layer}, where |x_down| is largest"
        says = "around the massive layer (oh2024)" if there else "around that layer; no activation is massive (sun2024)"
        found.append((title, f"The states of the start token {says}", layers))
        drawn |= set(layers)
    lives = findings["lifecycles"].drop_nulls("feature")
    lives = lives.filter(pl.col("feature").is_in(massive_features(lives).implode())).sort(
        pl.col("peak_value").abs(), descending=True
    )
    for life in lives.iter_rows(named=True):
        for event, verb in (("rise_layer", "grows"), ("fall_layer", "shrinks")):
            layer = life[event]
            if layer is None or layer in drawn or len(found) == _STAGES:
                continue
            layers = list(range(max(layer - _BESIDE, 0), layer + _BESIDE + 1))
            says = f"The states of the start token around the layer in which feature {life['feature']} {verb} most"
            found.append((f"Layer {layer}, where feature {life['feature']} {verb}", says, layers))
            drawn |= set(layers)
    return found


def _stage(states: pl.DataFrame, title: str, says: str, *, wide: bool) -> Block:
    first = pl.col("layer") == pl.col("layer").min()
    states = states.filter((pl.col("state") != "before") | first)  # otherwise the layer before has it already
    name = pl.col("state").replace(_STATES)
    name = pl.when(pl.col("expert").is_null()).then(name).otherwise(pl.format("{}, expert {}", name, "expert"))
    states = states.with_columns(rung=pl.format("{} {}", "layer", name)).unique(
        "rung", keep="first", maintain_order=True
    )
    shown = {"layer": "layer", "state": "state", "feature of the largest": "feature", "its value": "value"}
    return Block(
        title,
        f"{says}, from top to bottom in the order in which they are made; the number is the layer.",
        meaning("trace", "state", "top1", "median", "value"),
        ladder(states, "rung", _SIZES, shown, x_label="|value| (log)", group="layer"),
        tuple(mark.key for mark in reversed(_SIZES)),
        f"Marks on {states.height} rungs. {peak(states, 'top1', 'value', 'layer', 'state', 'feature')}",
        wide=wide,
    )


SECTIONS = (
    Section(
        "trace",
        "The start token's states, one by one",
        "Which state of the start token first has the massive activation, and which takes it away.",
        ("trace",),
        "The table has no rows: the start token was not traced.",
        trace,
    ),
)
