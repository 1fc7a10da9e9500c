"""The charts of weights, states and gains over depth."""

import math

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monadnock.findings import schema
from monadnock.report import charts_depth
from monadnock.report.parts import Findings
from tests.report.conftest import manifest

NUMBERS = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))
LAYERS = st.one_of(st.none(), st.integers(0, 3))


def drawn(**tables):
    frames = {name: schema.table(name).frame(rows) for name, rows in tables.items()}
    return [block for section in charts_depth.SECTIONS for block in section.draw(Findings(manifest(), frames))]


def values(block, name):
    (data,) = [r.data_source.data[name] for r in block.body.renderers if name in r.data_source.data][:1]
    return list(data)


def test_slices_along_the_model_dimension_are_rows_of_q_and_columns_of_o():
    rows = [
        {"layer": layer, "module": module, "axis": axis, "sigma_over_mean": value + layer}
        for layer in (0, 1)
        for module, axis, value in (("q", "row", 1.0), ("q", "column", 2.0), ("o", "row", 3.0), ("o", "column", 4.0))
    ]
    along, across = drawn(weights=rows)
    assert (values(along, "q"), values(along, "o")) == ([1.0, 2.0], [4.0, 5.0])
    assert (values(across, "q"), values(across, "o")) == ([2.0, 3.0], [3.0, 4.0])
    assert [key.label for key in along.keys] == ["W_q", "W_o", f"Gaussian, {math.sqrt(math.pi / 2):.2f}"]


def test_states_and_gains_over_the_layers():
    layers = [{"stream": "residual", "layer": layer, "rms": 2.0**layer, "median": 1.0} for layer in range(3)]
    layers.append({"stream": "down_proj_input", "layer": 0, "rms": 99.0, "median": 1.0})
    norms = [{"layer": layer, "norm": "attn_input", "mean": -0.5 + layer} for layer in range(2)]
    norms += [{"layer": 0, "norm": "mlp_input", "mean": 0.25}, {"layer": None, "norm": "final", "mean": 9.0}]
    states, gains = drawn(layers=layers, norms=norms)
    assert values(states, "rms") == [1.0, 2.0, 4.0]
    assert values(gains, "attn_input") == [-0.5, 0.5]
    assert values(gains, "mlp_input")[0] == 0.25
    assert [key.label for key in gains.keys] == ["gain in front of attention", "gain in front of the FFN"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(LAYERS, NUMBERS, NUMBERS, st.sampled_from(["q", "o", "<b>"])), max_size=6))
def test_any_rows_can_be_drawn(rows):
    drawn(
        weights=[{"layer": i, "module": m, "axis": "row", "sigma_over_mean": a} for i, a, _, m in rows],
        layers=[{"stream": "residual", "layer": i, "rms": a, "median": b} for i, a, b, _ in rows],
        norms=[{"layer": i, "norm": "attn_input", "mean": a} for i, a, _, _ in rows],
    )


def test_without_rows_there_is_nothing():
    assert drawn(weights=[], layers=[], norms=[]) == []
