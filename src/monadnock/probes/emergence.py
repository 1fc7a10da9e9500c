"""How the massive layer's FFN makes its massive activation: gate, up, activation, x_down and output, step by step."""

from collections.abc import Callable

import torch
from torch import Tensor

from monadnock.models import Adapter
from monadnock.probes.base import Evidence
from monadnock.probes.start import start_intermediate, start_state, text_median
from monadnock.sites import Stream
from monadnock.stats import Beginning, is_massive

_ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function", "activation")


def emergence(evidence: Evidence, layer: int) -> list[dict]:
    """Return the rows that table `emergence` has where this is the massive layer.

    They hold the start token against positions 1 to 63 of the first window. Both are computed from what goes into the
    FFN, with the weights of the expert that the start token goes to. Where act(gate) * up (or act(up)) is not what the
    model gave as x_down for the start token, other tokens have no activation, x_down and output here: such a family
    computes it in another way (gpt-oss).
    """
    adapter, inner = evidence.adapter, start_intermediate(evidence, layer)
    state, expert = inner.values, inner.expert
    rows = _chosen(state, text_median(evidence, Stream.DOWN_PROJ_INPUT, layer))
    residual = start_state(evidence, Stream.RESIDUAL, layer)
    outputs = _chosen(residual, text_median(evidence, Stream.RESIDUAL, layer))
    start = start_state(evidence, Stream.MLP_INPUT, layer)
    text = evidence.get(Beginning, Stream.MLP_INPUT, layer).values[1:].nan_to_num()
    given = torch.cat([start[None], text])  # [1 + text, d_model]
    up = _through(adapter, layer, "up", expert, given)
    gate = _through(adapter, layer, "gate", expert, given) if adapter.has("gate") else None
    act = _activation(adapter)
    active = None if act is None else act(up if gate is None else gate)
    made = None if active is None else active if gate is None else active * up
    if made is not None and (made[0] - state).abs().max() > 0.02 * state.abs().max().clamp(min=1e-6):
        active = made = None
    if made is None:
        made = torch.full_like(up, float("nan"))
    made[0] = state
    output = _through(adapter, layer, "down", expert, made)
    steps = [("gate", gate, rows), ("up", up, rows), ("activation", active if gate is not None else None, rows)]
    steps += [("intermediate", made, rows), ("output", output, outputs)]
    return [
        _row(values[:, feature], {"layer": layer, "expert": expert, "state": name, "feature": feature})
        for name, values, features in steps
        if values is not None
        for feature in features
    ]


def _chosen(values: Tensor, median: Tensor) -> list[int]:
    """Return the massive features, the largest first; the largest one where none is massive."""
    order = values.abs().argsort(descending=True)
    massive = is_massive(values, median)[order]
    return order[: max(1, int(massive.sum()))].tolist()


def _through(adapter: Adapter, layer: int, role: str, expert: int | None, given: Tensor) -> Tensor:
    """Multiply states [rows, in] with a weight, and add its bias."""
    weight, bias = adapter.weight(layer, role, expert).read(), adapter.bias(layer, role, expert)
    result = given @ weight.float().cpu().t()
    return result if bias is None else result + bias.read().float().cpu()


def _activation(adapter: Adapter) -> Callable[[Tensor], Tensor] | None:
    """Return the activation function that the config names."""
    from transformers.activations import ACT2FN

    names = [getattr(adapter.config, name, None) for name in _ACTIVATIONS]
    known = [name for name in names if isinstance(name, str) and name in ACT2FN]
    return ACT2FN[known[0]] if known else None


def _row(values: Tensor, place: dict) -> dict:
    start, others = float(values[0]), float(values[1:].abs().mean()) if len(values) > 1 else float("nan")
    known = others == others
    return place | {
        "start": start,
        "others": others if known else None,
        "ratio": abs(start) / others if known and others else None,
    }
