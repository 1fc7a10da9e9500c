"""Massive weights and features read in words: what makes them fire, and which tokens they push up or down."""

from typing import Any

import polars as pl
import torch
from torch import Tensor

from monadnock.findings import Run
from monadnock.models import Adapter
from monadnock.reading.dictionary import Dictionary
from monadnock.reading.folding import behind, in_front
from monadnock.reading.heads import both_ends, named

FEATURES = 4  # massive features of the start token that are read
ROWS = 5  # massive rows


def read_outliers(adapter: Adapter, run: Run, own: Dictionary, output: Dictionary) -> list[dict[str, Any]]:
    """Read what a run found massive: rows of the table `readings`.

    A feature is the unit vector of the residual; a row of W_up or W_gate is what h is compared with, the norm's gains
    folded in; a column of W_down is what its neuron adds to h.

    Args:
        adapter: the model.
        run: with the tables massive_weights and lifecycles.
        own: the input dictionary.
        output: the output dictionary.
    """
    return [*_features(adapter, run, own, output), *_neurons(adapter, run, own, output)]


def _features(adapter: Adapter, run: Run, own: Dictionary, output: Dictionary) -> list[dict[str, Any]]:
    lives = run.table("lifecycles").sort(pl.col("peak_value").abs(), descending=True)
    lives = lives.unique("feature", keep="first", maintain_order=True).head(FEATURES)
    rows = []
    for life in lives.to_dicts():
        feature, sign = life["feature"], 1.0 if life["peak_value"] >= 0 else -1.0
        vector = torch.zeros(1, adapter.hidden_size)
        vector[0, feature] = sign
        place = {"kind": "feature", "layer": life["peak_layer"], "index": feature, "strength": abs(life["peak_value"])}
        rows += _read(adapter, vector, place | {"side": "writes"}, output)
        rows += _read(adapter, vector, place | {"side": "reads"}, own)
    return rows


def _neurons(adapter: Adapter, run: Run, own: Dictionary, output: Dictionary) -> list[dict[str, Any]]:
    rows = []
    for found in run.table("massive_weights").filter(massive=True).sort("rank").head(ROWS).to_dicts():
        layer, expert, neuron = found["layer"], found["expert"], found["feature"]
        place = {"layer": layer, "index": neuron}
        norm = "attn_input" if adapter.norm(layer, "mlp_input") is None else "mlp_input"  # one may feed both
        for role in ("up", "gate"):
            if adapter.has(role):
                vector = adapter.weight(layer, role, expert).read()[neuron][None].float()
                vector = in_front(adapter, layer, norm, vector)
                here = place | {"kind": f"{role}_row", "side": "reads", "strength": float(vector.norm())}
                rows += _read(adapter, vector, here, own)
        vector = adapter.weight(layer, "down", expert).read()[:, neuron][None].float()
        vector = behind(adapter, layer, "mlp_output", vector)
        here = place | {"kind": "down_column", "side": "writes", "strength": float(vector.norm())}
        rows += _read(adapter, vector, here, output)
    return rows


def _read(adapter: Adapter, vector: Tensor, place: dict[str, Any], words: Dictionary) -> list[dict[str, Any]]:
    ends = both_ends(words, vector.to(words.rows.device))
    return [place | row for row in named(adapter, words, ends, 0)]
