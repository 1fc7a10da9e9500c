"""The charts of explanations, against numbers worked out by hand."""

import json
import math

import numpy as np
import pytest
from bokeh.embed import json_item
from bokeh.models import HBar, Line, LogScale, Patch, Rect, Scatter, Segment, VBar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monadnock.findings import schema
from monadnock.report import (
    charts_bands,
    charts_consistency,
    charts_life,
    charts_rotary,
    charts_selecting,
    charts_sinks,
    charts_trace,
)
from monadnock.report.logs import signed_log, signed_ticks
from monadnock.report.parts import Findings
from monadnock.report.theme import BLUE, GREY, VERMILION, blank
from tests.report.conftest import manifest
from tests.report.explained import any_explained
from tests.report.test_charts import data, of

MODULES = (
    charts_trace, charts_life, charts_sinks, charts_bands, charts_rotary, charts_selecting, charts_consistency,
)  # fmt: skip


def state(layer, step, name, top, **more):
    row = {"layer": layer, "step": step, "state": name, "top1": top, "top2": top / 2, "top3": top / 4, "median": 0.1}
    return row | {"feature": 3, "value": -top} | more


def states(sizes):
    """Return the states of layers; sizes are (x_down, h behind the layer)."""
    return [
        row
        for layer, (inner, after) in enumerate(sizes)
        for row in (
            state(layer, 0, "before", 1.0),
            state(layer, 1, "down_proj_input", inner, expert=2),
            state(layer, 2, "residual", after),
        )
    ]


def test_states_stand_in_the_order_in_which_they_are_made_around_the_massive_layer():
    rows = states([(1.0, 2.0), (2.0, 3.0), (3.0, 4.0), (900.0, 5000.0), (1.0, 4000.0), (1.0, 3000.0), (9999.0, 10.0)])
    massive = [{"layer": 3, "massive": True}]
    (block,) = charts_trace.trace(of("trace", rows[::-1], massive_weights=massive))
    assert block.title == "Massive layer 3"
    assert block.body.y_range.factors[::-1] == [
        "1 h before", "1 x_down, expert 2", "1 h after", "2 x_down, expert 2", "2 h after", "3 x_down, expert 2",
        "3 h after", "4 x_down, expert 2", "4 h after", "5 x_down, expert 2", "5 h after",
    ]  # fmt: skip
    assert isinstance(block.body.x_scale, LogScale)
    drawn = data(block.body, Scatter)
    np.testing.assert_array_equal(drawn["top1"], [1, 2, 3, 3, 4, 900, 5000, 1, 4000, 1, 3000])
    np.testing.assert_array_equal(drawn["_least"], [0.1] * 11)
    np.testing.assert_array_equal(drawn["_most"], drawn["top1"])
    assert block.body.x_range.start < 0.1 < 5000 < block.body.x_range.end
    (calm,) = charts_trace.trace(of("trace", rows))
    assert calm.title == "Layer 3, where |x_down| is largest"
    assert "no activation is massive" in calm.says


def test_births_and_deaths_of_massive_features_far_from_the_massive_layer_are_traced_too():
    rows = states([(1.0, 2.0)] * 10 + [(900.0, 5000.0)] + [(1.0, 100.0)] * 9)
    lives = [
        {"feature": 7, "rise_layer": 10, "fall_layer": 17, "peak_value": -5000.0, "massive": True},
        {"feature": 7, "rise_layer": 3, "fall_layer": 8, "peak_value": 500.0, "massive": False},
        {"feature": 9, "rise_layer": 5, "fall_layer": None, "peak_value": 9999.0, "massive": False},
    ]
    blocks = charts_trace.trace(of("trace", rows, lifecycles=lives))
    assert [block.title.partition(",")[0] for block in blocks] == ["Layer 10", "Layer 17", "Layer 3"]
    assert "feature 7 shrinks" in blocks[1].title
    layers = [sorted({int(name.split()[0]) for name in block.body.y_range.factors}) for block in blocks]
    assert layers == [[8, 9, 10, 11, 12], [16, 17, 18], [2, 3, 4]]


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12))
def test_the_axis_for_both_signs_keeps_order_and_sign(a, b):
    there = signed_log(np.array([a, b, -a]))
    assert np.sign(there[0]) == np.sign(a)
    assert there[2] == -there[0]
    if a < b:
        assert there[0] <= there[1]


def test_the_axis_for_both_signs_is_labelled_with_values():
    np.testing.assert_allclose(signed_log(np.array([0.0, 0.25, -1.0, 100.0, -1000.0])), [0, 0.25, -1, 3, -4])
    plot = blank((0.0, 1.0), (-4.2, 5.4), x_label="", y_label="", height=200)
    signed_ticks(plot, -4.2, 5.4)
    labels = plot.yaxis[0].major_label_overrides
    assert {place: labels[place] for place in (-4, -2, 0, 2, 4)} == {
        -4: "-1,000",
        -2: "-10",
        0: "0",
        2: "10",
        4: "1,000",
    }
    assert set(labels) == set(plot.yaxis[0].ticker.ticks)


def life(feature, steps):
    """Return contributions; steps are (before, attention, mlp)."""
    return [
        {"feature": feature, "layer": i, "before": b, "attention": a, "mlp": m, "after": b + a + m}
        for i, (b, a, m) in enumerate(steps)
    ]


GROWS = [(0.0, 0.5, 1.5), (2.0, 10.0, -9000.0), (-8988.0, 0.5, 0.0), (-8987.5, 8000.0, -12.5)]


def test_contributions_are_drawn_as_amounts_and_with_small_steps_visible():
    rows = life(4, [(0.0, 0.0, 99999.0)] * 4) + life(7, GROWS)
    findings = of("contributions", rows, lifecycles=[{"feature": 7, "birth": 1, "massive": True}])
    amounts, small, ways = charts_life.life(findings)
    assert amounts.title == "What is added to feature 7"  # feature 4 is larger, but not massive
    assert "In layer 1 the FFN adds -9,000; in layer 3 attention adds 8,000; -1,000 is left" in amounts.says
    drawn = data(amounts.body, VBar)
    np.testing.assert_array_equal(drawn["mlp"], [1.5, -9000, 0, -12.5])
    np.testing.assert_array_equal(drawn["attention"], [0.5, 10, 0.5, 8000])
    np.testing.assert_array_equal(drawn["after"], [2, -8988, -8987.5, -1000])
    assert drawn["_attention"][1] < 1 < drawn["_mlp"][1]
    drawn = data(small.body, Scatter, 1)
    np.testing.assert_allclose(drawn["attention"], [0.5, 2, 0.5, 1 + math.log10(8000)])
    assert drawn["attention_text"] == ["0.5", "10", "0.5", "8,000"]
    assert ways.body.rows()[1] == (7, 1, "FFN", -9000.0, -8988.0, 3, "attention", 8000.0, -1000.0)


def test_emergence_sets_the_start_token_against_others_step_by_step():
    place = {"layer": 2, "expert": 1}
    rows = [
        place | {"state": name, "feature": feature, "start": start, "others": others, "ratio": 9.0}
        for name, feature, start, others in (
            ("output", 3, -9000.0, 4.0), ("gate", 8, -2.0, 0.5), ("gate", 9, 1.0, None), ("intermediate", 8, 50.0, 0.0),
        )
    ]  # fmt: skip
    chart, numbers = charts_life.life(of("emergence", rows))
    assert chart.body.y_range.factors[::-1] == [
        "gate, feature 8", "gate, feature 9", "x_down, feature 8", "FFN out, feature 3",
    ]  # fmt: skip
    drawn = data(chart.body, Scatter, 1)
    np.testing.assert_array_equal(drawn["size"], [2, 1, 50, 9000])
    np.testing.assert_array_equal(drawn["others"], [0.5, np.nan, np.nan, 4])
    assert "layer 2, expert 1" in chart.says
    assert numbers.body["start token"].to_list() == [-2, 1, 50, -9000]


def head(layer, number, kind, **more):
    row = {"layer": layer, "head": number, "kind": kind, "mean": 0.5, "std": 0.2, "p10": 0.2, "p90": 0.8}
    return row | {"context_share": 0.9, "value_ratio": 0.25} | more


def test_scaling_shows_only_heads_that_something_scales():
    rows = [
        head(0, 0, "none", mean=1.0),
        head(0, 1, "key"),
        head(1, 0, "learned", value_ratio=5.0),
        head(1, 1, "key+gate"),
    ]
    blocks = {block.title: block for block in charts_sinks.scaling(of("scaling", rows))}
    assert data(blocks["Mean scale of every head"].body, Rect)["_shown"].tolist()[1:] == [0.5, 0.5, 0.5]
    assert math.isnan(data(blocks["Mean scale of every head"].body, Rect)["_shown"][0])
    spread = data(blocks["Spread of the scale"].body, Line)
    np.testing.assert_array_equal(spread["p10"], [0.2, 0.2] + [np.nan] * 4)
    assert data(blocks["Value of the sink"].body, Scatter, 1)["value_ratio"].tolist() == [0.25, 0.25]
    assert "3 of 4 heads" in blocks["Is the scale a constant?"].says
    assert "follows the context" in blocks["Is the scale a constant?"].says
    (none,) = charts_sinks.scaling(of("scaling", rows[:1]))
    assert none.body is None
    assert "Nothing scales any of 1 head" in none.says


def test_zero_update_and_gap_are_drawn_only_where_there_is_something():
    updates = [{"layer": 0, "others": 4.0}, {"layer": 1, "sinks": 1.0, "others": 4.0, "ratio": 0.25}]
    heads = [
        {"layer": 0, "head": i, "sink": i == 0, "logit_gap": gap} for i, gap in enumerate((9.0, 2.0, 4.0, math.nan))
    ]  # fmt: skip
    update, gap = charts_sinks.scaling(of("zero_update", updates, heads=heads))
    np.testing.assert_array_equal(data(update.body, Line)["ratio"], [np.nan, 0.25])
    assert "less to h at sinks than elsewhere in 1 of 1 layer with" in update.says
    drawn = data(gap.body, Line)
    assert (drawn["with a sink"].tolist(), drawn["without a sink"].tolist()) == ([9], [3])
    assert charts_sinks.scaling(of("zero_update", updates[:1])) == []


def feature(layer, number, i, **more):
    row = {"layer": layer, "head": number, "feature": i, "dimension": i, "other_dimension": i + 4, "cycles": 10.0**-i}
    row |= {
        "q_relative": 1.0,
        "k_relative": 2.0,
        "angle": 0.1,
        "offset": False,
        "bound_frequency": i > 0,
        "k_radius": 4.0,
    }
    return row | {"bound_angle": False, "mean_contribution": 0.0} | more


def test_offsets_stand_against_the_bounds():
    offset = {"q_relative": 4.0, "k_relative": 3.0, "offset": True}
    rows = [
        feature(0, 0, 0, **offset, angle=2.0),
        feature(0, 0, 1, **offset, angle=-2.0, bound_angle=True),
        feature(1, 0, 1, **offset, angle=1.0),
        feature(1, 0, 2),
        feature(1, 1, 2, q_relative=3.5, k_relative=9.0),
    ]
    radius, angle, layers, shares, listed = charts_rotary.offsets(of("rotary", rows))
    by_colour = {r.glyph.fill_color: r.data_source.data for r in radius.body.renderers if isinstance(r.glyph, Scatter)}
    assert by_colour[VERMILION]["radius"].tolist() == [3, 3, 3]
    assert by_colour[VERMILION]["cycles"].tolist() == [1, 0.1, 0.1]
    assert by_colour[GREY]["features"].tolist() == [2]
    assert by_colour[GREY]["middle"].tolist() == [(1 + 3.5) / 2]
    assert "2 of 3 offset features turn by half a cycle or less" in radius.says
    np.testing.assert_allclose(data(angle.body, Scatter)["turned"], [2, 2 * math.pi - 2, 1])
    assert "1 of 3 offset features" in angle.says
    drawn = data(layers.body, VBar)
    assert [drawn[f"_{part}"].tolist()[:2] for part in range(3)] == [[1, 0], [0, 1], [1, 0]]
    assert shares.body.rows() == [("offset", 3, 66.7, 33.3), ("slow", 4, 100.0, 25.0), ("all", 5, 80.0, 20.0)]
    assert listed.body.rows() == [(0, "0+4", 1.0, 1, 0, 0), (1, "1+5", 0.1, 2, 1, 0)]
    (none,) = charts_rotary.offsets(of("rotary", rows[3:]))[1:]
    assert "no offset feature among 2 rotary features" in none.says


@given(st.floats(0.001, 0.499))
def test_the_region_of_angles_ends_where_the_bound_does(cycles):
    row = feature(0, 0, 1, offset=True, cycles=0.001, angle=2.0)
    angle = next(b for b in charts_rotary.offsets(of("rotary", [row])) if b.title.startswith("Angle"))
    patch = data(angle.body, Patch)
    upper = np.interp(math.log(cycles), np.log(patch["x"][:-1]), patch["y"][:-1])
    assert upper == pytest.approx(1.5 * math.pi - 2 * math.pi * cycles, abs=0.05)
    assert patch["y"][-1] == patch["y"][-2] == pytest.approx(math.pi / 2)


def test_bands_mark_the_halves_and_the_first_slow_feature():
    rows = [
        {"layer": i, "dimension": d, "feature": d % 4, "half": d // 4, "q_max": 1.0 + d, "k_max": 2.0}
        for i in range(2)
        for d in range(8)
    ]
    slow = [feature(i, 0, f, bound_frequency=f >= 2 + i) for i in range(2) for f in range(4)]
    query, key = charts_bands.bands(of("bands", rows, rotary=slow))
    assert data(query.body, Rect)["q_max"].tolist() == [1.0 + d for _ in range(2) for d in range(8)]
    assert data(key.body, Rect)["k_max"].tolist() == [2.0] * 16
    lines = [r for r in query.body.renderers if isinstance(r.glyph, Segment)]
    halves, marked = lines[0].data_source.data, lines[-1].data_source.data
    assert sorted(halves["y0"]) == [3.5, 3.5]
    assert sorted(zip(marked["x0"], marked["y0"], strict=True)) == [(-0.5, 1.5), (-0.5, 5.5), (0.5, 2.5), (0.5, 6.5)]
    woven = [row | {"feature": row["dimension"] // 2, "half": row["dimension"] % 2} for row in rows]
    query, _ = charts_bands.bands(of("bands", woven, rotary=slow))
    assert not [r for r in query.body.renderers if isinstance(r.glyph, Segment)]
    assert query.keys == ()


def test_the_feature_that_lifts_the_sink_most_selects_it():
    rows = [
        feature(0, 0, 0, sink_contribution=9.0, mean_contribution=8.0),
        feature(0, 0, 1, sink_contribution=0.5, mean_contribution=-7.0, sink_k_radius=0.4, offset=True),
        feature(0, 1, 1),
        feature(1, 0, 2, sink_contribution=3.0, sink_k_radius=8.0),
    ]
    chosen, kept = charts_selecting.sinks(of("rotary", rows))
    drawn = data(chosen.body, Rect)
    assert list(drawn["name"]) == ["feature 1", "no sink", "feature 2"]
    assert drawn["_colour"][1] == "rgba(0, 0, 0, 0)"
    assert "of 2 heads with a sink, feature 1 in 1, 2 in 1" in chosen.says
    dots = [r for r in kept.body.renderers if isinstance(r.glyph, Scatter)]
    assert [(r.glyph.fill_color, *r.data_source.data["kept"]) for r in dots] == [(VERMILION, 0.1), (BLUE, 2)]
    assert "In 1 head an offset feature selects the sink: its key has 0.1 of" in kept.says
    assert charts_selecting.sinks(of("rotary", rows[2:3])) == []


def test_dimensions_that_select_the_sink_stand_with_their_partners():
    bands = [{"layer": 0, "dimension": d, "feature": d % 4, "half": d // 4} for d in range(8)]
    rows = [
        {"layer": 0, "head": h, "rank": r, "dimension": d, "share": 0.3}
        for h, dims in enumerate([(2, 6, 1), (6, 2, 9)])
        for r, d in enumerate(dims, 1)
    ]
    (block,) = charts_selecting.spread(of("spread", rows, bands=bands))
    drawn = data(block.body, HBar)
    assert drawn["name"] == ["2 and 6 (feature 2)", "2 and 6 (feature 2)", "dimension 9", "1 (feature 1)"]
    assert drawn["half"] == ["first of its pair", "second of its pair", "not turned", "first of its pair"]
    assert drawn["heads"].tolist() == [2, 2, 1, 1]
    assert drawn["_right"].tolist() == [2, 4, 1, 1]
    assert "2 heads with a sink" in block.says


def test_weight_outliers_stand_by_layer_with_the_largest_listed_first():
    rows = [
        {"layer": 0, "row": 1, "column": 2, "weight": 0.5, "column_ratio": 20.0, "row_ratio": 7.0},
        {"layer": 0, "row": 1, "column": 3, "weight": 0.5, "column_ratio": 30.0, "row_ratio": 5.0},
        {"layer": 1, "row": 4, "column": 2, "weight": -0.5, "column_ratio": 200.0, "row_ratio": math.nan},
        {"layer": 1, "row": 4, "column": 5, "weight": math.nan, "column_ratio": math.nan, "row_ratio": 9.0},
    ]
    chart, listed = charts_consistency.weight_outliers(of("weight_outliers", rows))
    lines = data(chart.body, Line)
    assert lines["column_ratio"].tolist() == [30, 200]
    assert lines["row_ratio"][0] == 7
    assert set(lines["monadnock.column_ratio"]) == {100}
    assert "W_down[4, 2] of layer 1 stands out most, with 200." in chart.says
    assert listed.body["column_ratio"].to_list() == [200, 30, 20]
    assert "expert" not in listed.body.columns


def test_consistency_stands_beside_the_published_shares():
    row = {"outlier_1": "weight outliers in W_down", "outlier_2": "activation outliers in h", "dimension": "feature"}
    row |= {"criterion": "an2025", "layers": "same", "published": 100.0}
    other = {"outlier_1": "activation outliers in h", "outlier_2": "attention outliers in A", "dimension": "sequence"}
    rows = [
        row | {"num_outliers": 0, "num_groups": 0, "num_capped": 0},
        row | other | {"layers": "next", "consistency": 80.39, "num_outliers": 306, "num_groups": 17},
        row | {"criterion": "gu", "consistency": 50.0, "num_outliers": 2, "num_groups": 2, "num_capped": 7},
    ]
    first, second = charts_consistency.consistency(of("consistency", rows))
    cells = [[cell.text for cell in cells] for cells in first.body.rows]
    assert cells == [
        ["W_down", "h, same feature", "none found", "100", "0", "0"],
        ["h", "A of the next layer, same position", "80.4", "100", "306", "17"],
    ]
    assert "1 of 2 pairs" in first.says
    assert "In windows of 128 tokens no c_j is above 1,000 times its mean" in first.says
    assert "windows" not in second.says
    assert "In 7 samples the list of activations is full" in second.says
    assert "full" not in first.says


def drawn(tables):
    """Draw all sections of explanations and check what holds for any chart."""
    findings = Findings(manifest(), {name: schema.table(name).frame(rows) for name, rows in tables.items()})
    for module in MODULES:
        for section in module.SECTIONS:
            for block in section.draw(findings):
                assert block.says.endswith(".")
                assert block.notes
                assert "None" not in block.says
                if block.kind == "chart":
                    json.dumps(json_item(block.body), allow_nan=False)
                    assert len(block.alt) > 20
                    for ends in (block.body.x_range, block.body.y_range):
                        start, end = getattr(ends, "start", 0), getattr(ends, "end", 1)
                        if not hasattr(ends, "factors"):
                            assert math.isfinite(start) and math.isfinite(end) and start != end


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(any_explained())
def test_whatever_the_tables_hold_the_charts_come_out(tables):
    drawn(tables)


def test_the_charts_of_a_large_model_stay_small():
    layers, heads, pairs = 32, 32, 64
    grid = [(i, h, f) for i in range(layers) for h in range(heads) for f in range(pairs)]
    rotary = [
        feature(i, h, f, cycles=0.9**f, offset=f > 60, sink_contribution=float(f), sink_k_radius=1.0, q_relative=4.0)
        for i, h, f in grid
    ]  # fmt: skip
    bands = [
        {"layer": i, "dimension": d, "feature": d % 64, "half": d // 64, "q_max": 1.0, "k_max": 1.0 + d}
        for i in range(layers)
        for d in range(128)
    ]
    scaling = [head(i, h, "key") for i in range(layers) for h in range(heads)]
    findings = of("rotary", rotary, bands=bands, scaling=scaling)
    blocks = [
        b for module in MODULES for section in module.SECTIONS for b in section.draw(findings) if b.kind == "chart"
    ]
    assert len(blocks) > 8
    assert sum(len(json.dumps(json_item(block.body))) for block in blocks) < 4e6
    radius = next(block for block in blocks if block.title == "Radius against cycles")
    assert "The 1,500 largest are drawn." in radius.says
    spread = data(radius.body, Segment)
    assert 30 < len(spread["cycles"]) <= 41
    assert spread["features"].sum() == layers * heads * 61
