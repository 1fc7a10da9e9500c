"""What the page says about a map in words."""

from collections.abc import Mapping

from monadnock.explorer.tiles import MOST
from monadnock.explorer.weights import LEVELS, Weights
from monadnock.findings.manifest import Manifest

_DIGITS = 19  # of a revision, which tell it apart; the run's manifest has them all


def title(facts: Mapping[str, str]) -> str:
    """Return what a map is of, as `Layer 11, o`.

    Example:
        >>> title({"layer": "3", "module": "down", "expert": "7"})
        'Layer 3, down, expert 7'
    """
    expert = f", expert {facts['expert']}" if facts.get("expert") else ""
    return f"Layer {facts['layer']}, {facts['module']}{expert}"


def told(manifest: Manifest, weights: Weights, facts: Mapping[str, str], bits: int) -> dict[str, str]:
    """Return what a reader needs to know of a map, by label.

    Args:
        manifest: of its run.
        weights: the map.
        facts: of the map.
        bits: of |code| that the page keeps.
    """
    count, width = weights.codes.shape
    grid = "one grid for each row" if weights.group >= width else f"one grid for {weights.group} columns of a row"
    if facts.get("axis"):
        lines = "rows" if facts["axis"] == "row" else "columns"
        heads = {"Heads": f"{facts['num_heads']} of {facts['d_head']} {lines}"}
    else:
        heads = {}
    steps = LEVELS if bits == MOST else 2**bits - 1
    model = manifest.model
    return {
        "Model": model.id + (f" at {model.revision[:_DIGITS]}" if model.revision else ""),
        "In the checkpoint": facts.get("name", ""),
        "Rows (outputs) x columns (inputs)": f"{count:,} x {width:,}",
        **heads,
        "Rounding": f"{weights.bits} bits, {grid}",
        "Calibration": f"{int(facts.get('tokens') or 0):,} tokens; {facts.get('data', '')}",
        "Precision here": f"{bits + 1} bits a weight: {steps:,} steps from 0 to the largest |w| of its row",
    }
