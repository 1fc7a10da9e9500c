"""The charts' data, against numbers worked out by hand."""

import math

import numpy as np
import polars as pl
import pytest
from bokeh.models import FactorRange, HBar, HoverTool, Line, LogScale, Rect, Scatter

from monadnock.findings import schema
from monadnock.report import charts_activations, charts_attention, charts_massive, charts_router, charts_weights
from monadnock.report.parts import Findings
from monadnock.report.source import extent, source
from monadnock.report.theme import BLUE, HEAD_KINDS, VERMILION
from tests.report.conftest import LAYERS, manifest


def of(name, rows, **more):
    tables = {name: rows, **more}
    return Findings(manifest(), {name: schema.table(name).frame(rows) for name, rows in tables.items()})


def data(plot, glyph, index=0):
    renderers = [renderer for renderer in plot.renderers if isinstance(renderer.glyph, glyph)]
    return renderers[index].data_source.data


def layer(i, **values):
    return {"stream": "residual", "layer": i, "top1": 10.0, "top2": 5.0, "top3": 1.0, "median": 0.5} | values


def test_layer_curves_draw_the_tables_numbers_and_leave_out_what_has_no_logarithm():
    rows = [layer(1, top1=math.inf), layer(0, top1=2000.0, num_outliers=1), layer(2, median=0.0)]
    (block,) = charts_activations.layer_curves(of("layers", rows))
    plot = block.body
    assert isinstance(plot.y_scale, LogScale)
    assert [r.glyph.y for r in plot.renderers if isinstance(r.glyph, Line)] == [
        "top1",
        "top2",
        "top3",
        "median",
        "bound",
    ]
    drawn = data(plot, Line)
    np.testing.assert_array_equal(drawn["layer"], [0, 1, 2])
    np.testing.assert_array_equal(drawn["top1"], [2000, np.nan, 10])
    np.testing.assert_array_equal(drawn["median"], [0.5, 0.5, np.nan])
    np.testing.assert_array_equal(drawn["bound"], [500, 500, 100])
    assert drawn["top1_text"] == ["2,000", "∞", "10"]
    rings = [r for r in plot.renderers if isinstance(r.glyph, Scatter) and r.glyph.fill_alpha == 0]
    assert rings[0].data_source.data["layer"] == [0]
    assert "layer with outliers (an2025)" in [key.label for key in block.keys]
    assert plot.y_range.start < 0.5
    assert plot.y_range.end > 2000


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0, None])
def test_a_chart_without_a_drawable_number_still_has_finite_axes(value):
    values = dict.fromkeys(["top1", "top2", "top3", "median"], value)
    (block,) = charts_activations.layer_curves(of("layers", [layer(0, **values)]))
    assert math.isfinite(block.body.y_range.start)
    assert block.body.y_range.start < block.body.y_range.end


@pytest.mark.parametrize("log", [True, False])
def test_extent_holds_every_finite_value(log):
    values = np.array([3.0, np.nan, 1e6, np.inf, 0.2, -np.inf])
    low, high = extent(values, log=log)
    assert low < 0.2
    assert 1e6 < high < 1e7
    assert extent(np.array([2.0, 8.0]), zero=True)[0] == 0


def test_hovering_shows_texts_and_never_raw_html():
    frame = pl.DataFrame(
        {"token": ["<img src=x>\n", None], "sink": [True, None], "layer": [1229, 2], "c": [math.nan, 1e-7]}
    )
    drawn = source(frame).data
    assert drawn["token_text"] == ["<img␣src=x>↵", "(none)"]
    assert drawn["sink_text"] == ["yes", "(none)"]
    assert drawn["layer_text"] == ["1229", "2"]
    assert drawn["c_text"] == ["NaN", "1e-07"]


def test_no_hover_tool_marks_a_value_as_safe_html(findings):
    plots = [b.body for b in charts_activations.carriers(findings) + charts_attention.sinks(findings)]
    tips = [tool.tooltips for plot in plots for tool in plot.tools if isinstance(tool, HoverTool)]
    assert len(tips) >= len(plots)
    assert all("safe" not in tip and "_text}" in tip for tip in tips)


def test_carriers_count_only_entries_that_meet_a_criterion():
    base = {
        "stream": "residual",
        "layer": 1,
        "token_class": "start",
        "feature": 3,
        "value": -900.0,
        "criterion": "sun2024",
    }
    rows = [
        base | {"token": " a"},
        base | {"token": " a", "value": 1000.0, "token_class": "weak"},
        base | {"token": "b", "stream": "down_proj_input"},
        base | {"token": "c", "criterion": None},
    ]
    blocks = charts_activations.carriers(of("activations", rows))
    assert [block.title.split(":")[0] for block in blocks] == [
        "Token classes",
        "Tokens",
        "Tokens",
        "Features",
        "Features",
    ]
    tokens = data(blocks[1].body, HBar)
    assert tokens["token"] == ["␣a", "␣a"]
    assert tokens["token_class"] == ["start", "weak"]
    np.testing.assert_array_equal(tokens["_left"], [0, 1])
    np.testing.assert_array_equal(tokens["_right"], [1, 2])
    np.testing.assert_array_equal(tokens["largest"], [900, 1000])
    assert blocks[3].body.y_range.factors == ["feature 3"]
    assert blocks[4].body.y_range.factors == ["layer 1, feature 3"]
    assert charts_activations.carriers(of("activations", rows[3:])) == []


def test_lifecycles_span_birth_to_the_layer_before_death():
    rows = [
        {"feature": 7, "birth": 1, "death": 3, "peak_layer": 2, "peak_value": -880.0, "massive": False},
        {"feature": 9, "birth": 4, "death": None, "peak_layer": 5, "peak_value": -80.0, "massive": True},
    ]
    (block,) = charts_massive.lifecycles(of("lifecycles", rows))
    drawn = data(block.body, HBar)
    assert drawn["name"] == ["feature 9", "feature 7"]
    np.testing.assert_array_equal(drawn["_left"], [3.5, 0.5])
    np.testing.assert_array_equal(drawn["_right"], [LAYERS - 0.5, 2.5])
    assert isinstance(block.body.y_range, FactorRange)
    assert drawn["_colour"] == [VERMILION, BLUE]
    assert drawn["death_text"] == ["(none)", "3"]


def test_start_token_rings_the_massive_layer_on_the_curve_of_x_down():
    rows = [
        {"stream": stream, "layer": i, "rank": rank, "feature": 3, "value": -scale * (i + 1) / rank}
        for stream, scale in (("down_proj_input", 10.0), ("residual", 100.0))
        for i in range(3)
        for rank in (1, 2)
    ]
    massive = [{"layer": 1, "rank": 1, "feature": 5, "magnitude": 20.0, "massive": True}]
    (block,) = charts_massive.start_token(of("start_states", rows, massive_weights=massive))
    drawn = data(block.body, Line)
    np.testing.assert_array_equal(drawn["residual"], [100, 200, 300])
    np.testing.assert_array_equal(drawn["down_proj_input"], [10, 20, 30])
    ring = next(r for r in block.body.renderers if isinstance(r.glyph, Scatter) and r.glyph.fill_alpha == 0)
    assert (ring.glyph.y, *ring.data_source.data["down_proj_input"]) == ("down_proj_input", 20)
    assert "the massive layer is 1." in block.says


def test_cumulative_attention_averages_the_two_largest_of_each_window():
    rows = [
        {"layer": 0, "head": head, "sequence": w, "position": p, "token": t, "cumulative": c}
        for head, w, p, t, c in [
            (None, 0, 0, "<s>", 100.0), (None, 0, 3, "x", 20.0), (None, 0, 9, "y", 1.0),
            (None, 1, 0, "<s>", 300.0), (None, 1, 4, "z", 40.0), (2, 0, 0, "<s>", 9999.0),
        ]
    ]  # fmt: skip
    (block,) = charts_attention.cumulative(of("attention", rows))
    drawn = data(block.body, Line)
    assert (*drawn["first"], *drawn["second"], *drawn["token"]) == (200, 30, "<s>")


def test_sinks_are_dotted_and_counted_by_position(findings):
    heads = findings["heads"]
    sinks = heads.filter("sink")
    first, second, spread, positions = charts_attention.sinks(findings)
    on_first = sinks.filter(pl.col("sink_position") == 0)
    assert 0 < on_first.height < sinks.height
    for block, column, dotted in ((first, "sink_mass", sinks), (second, "first_key_mass", on_first)):
        assert data(block.body, Rect)[column].tolist() == heads[column].to_list()
        assert len(data(block.body, Scatter)["layer"]) == dotted.height
    rate = data(spread.body, Line)["rate"]
    assert rate.tolist() == heads.group_by("layer").agg(pl.col("sink").mean()).sort("layer")["sink"].to_list()
    assert set(data(spread.body, Line)["bound"]) == {0.3}
    assert data(positions.body, HBar)["count"].sum() == sinks.height
    none = findings["heads"].with_columns(sink=pl.lit(False))
    assert "No head has a sink" in charts_attention.sinks(of("heads", none))[3].says


def test_kinds_have_their_colours(findings):
    (block,) = charts_attention.kinds(findings)
    drawn = data(block.body, Rect)
    assert drawn["_colour"] == [HEAD_KINDS[kind] for kind in drawn["kind"]]
    assert [key.label for key in block.keys] == [kind for kind in HEAD_KINDS if kind in drawn["kind"]]


def test_weights_show_the_worst_expert_and_only_finite_errors():
    base = {"layer": 0, "module": "down", "axis": "column"}
    rows = [
        base | {"expert": 0, "extremal_ratio": 5.0},
        base | {"expert": 1, "extremal_ratio": 50.0},
        base | {"axis": "row", "extremal_ratio": 999.0},
        base | {"axis": "tensor", "expert": 0, "w8_error": 0.01},
        base | {"axis": "tensor", "expert": 1, "w8_error": 0.03},
        base | {"axis": "tensor", "module": "q", "w8_error": math.nan},
    ]
    ratios, errors = charts_weights.weights(of("weights", rows))
    assert (*data(ratios.body, Rect)["extremal_ratio"], *data(ratios.body, Rect)["expert"]) == (50, 1)
    assert errors.body.y_range.factors == ["layer 0, down, expert 0", "layer 0, down, expert 1"]
    np.testing.assert_allclose(data(errors.body, HBar)["_right"], [3, 1])


def test_parameters_add_up():
    rows = [
        {"component": "q", "layer": 0, "count": 30},
        {"component": "q", "layer": 1, "count": 30},
        {"component": "embedding", "layer": None, "count": 40},
    ]
    (block,) = charts_weights.parameters(of("parameters", rows))
    assert block.body.rows() == [("q", 2, 60, 60), ("embedding", None, 40, 40), ("total", None, 100, 100)]
    assert block.says.startswith("100 parameters")


def test_the_router_has_a_map_for_each_input(findings):
    blocks = charts_router.router(findings)
    assert [block.title for block in blocks] == ["Router on start", "Router on text"]
    for block, name in zip(blocks, ("start", "text"), strict=True):
        expected = findings["router"].filter(input=name)["probability"].to_list()
        assert data(block.body, Rect)["probability"].tolist() == expected
