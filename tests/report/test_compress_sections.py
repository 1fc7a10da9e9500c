"""Sensitivity, patterns, compressors and prescriptions on the page: its numbers are those of the tables."""

import json
import math

import numpy as np
import pytest
from bokeh.embed import json_item
from bokeh.models import ColorBar, HoverTool, LogColorMapper, LogScale, Rect, Scatter, Span, Text
from hypothesis import given, settings
from hypothesis import strategies as st

from monadnock.findings import schema
from monadnock.relations.compare_words import times
from monadnock.report import charts_compress, charts_patterns, charts_prescribe, charts_sensitivity, write_report
from monadnock.report.matrix_maps import log_labels
from monadnock.report.parts import Findings
from monadnock.report.trades import label_heights
from tests.report import compress_rows
from tests.report.conftest import HOSTILE, attacks, manifest, write_run
from tests.report.html_page import Page
from tests.report.test_tokens import any_rows

SETTING = {"bits": 3, "group": None, "data": "topics, 2 x 64"}
DRAW = (
    charts_sensitivity.sensitivity, charts_patterns.patterns, charts_compress.compressors,
    charts_prescribe.prescriptions,
)  # fmt: skip
TITLES = ("Sensitivity to rounding", "Patterns of sensitivity", "Compressors", "Prescriptions")
TABLES = ("sensitivity", "sensitivity_lines", "patterns", "compressions", "effects", "prescriptions")


def found(**tables):
    return Findings(manifest(), {name: schema.table(name).frame(rows) for name, rows in tables.items()})


def matrix(layer, module, expert=None, kind="plain", **values):
    return {"layer": layer, "module": module, "expert": expert, "kind": kind, "num_tokens": 9} | SETTING | values


def cells(block):
    (rects,) = [each.data_source.data for each in block.body.renderers if isinstance(each.glyph, Rect)]
    return rects


def rows(block):
    return [tuple(cell.text for cell in row) for row in block.body.rows]


def cell_texts(block):
    data = cells(block)
    return list(zip(data["_layer_text"], data["module"], data["relative_text"], strict=True))


def test_plain_and_compensated_stand_side_by_side_on_one_log_scale():
    table = [
        matrix(layer, module, kind=kind, relative=size, total=5.0, top_1e3=size / 2)
        for kind, size in (("sequential", 0.05), ("compensated", 0.001), ("plain", 0.4))
        for layer in (0, 1)
        for module in ("down", "q")
    ]
    blocks = charts_sensitivity.sensitivity(found(sensitivity=table))
    kinds = ("plain", "compensated")
    assert [block.title for block in blocks] == [
        *(f"Loss of rounding, {kind}" for kind in kinds), *(f"Concentration, {kind}" for kind in kinds),
        "Loss of rounding, sequential", "Concentration, sequential",
    ]  # fmt: skip
    scales = [next(each for each in blocks[i].body.below if isinstance(each, ColorBar)).color_mapper for i in (0, 1, 4)]
    assert all(isinstance(scale, LogColorMapper) for scale in scales)
    assert len({(scale.low, scale.high) for scale in scales}) == 1
    assert scales[0].low < 0.001
    assert scales[0].high > 0.4
    assert "3 bits, one grid for each row, unknown damping, topics, 2 x 64" in blocks[0].says
    assert blocks[0].body.y_range.factors == ["down", "q"]  # drawn from below
    np.testing.assert_array_equal(cells(blocks[0])["relative"], [0.4] * 4)
    np.testing.assert_array_equal(cells(blocks[3])["top_1e3"], [0.0005] * 4)
    (tool,) = [tool for tool in blocks[0].body.tools if isinstance(tool, HoverTool)]
    for column in ("relative", "total", "top_1e4", "top_1e3", "top_1e2", "num_tokens", "num_inputs", "num_dead"):
        assert f"@{{{column}_text}}" in tool.tooltips


def test_a_cell_is_the_worst_expert_and_layers_that_were_not_measured_take_no_room():
    table = [matrix(layer, "q", relative=0.1) for layer in (0, 11, 29)]
    table += [matrix(11, "down", expert, relative=size) for expert, size in ((0, 0.2), (1, 0.9), (2, math.nan))]
    table += [matrix(29, "down", 3, num_tokens=0)]
    loss = charts_sensitivity.sensitivity(found(sensitivity=table))[0]
    assert sorted(cell_texts(loss)) == [
        ("0", "q", "0.1"), ("11", "down", "0.9"), ("11", "q", "0.1"), ("29", "down", "(none)"), ("29", "q", "0.1"),
    ]  # fmt: skip
    data = cells(loss)
    assert dict(zip(data["_layer_text"], data["layer"].tolist(), strict=True)) == {"0": 0, "11": 1, "29": 2}
    assert loss.body.xaxis[0].major_label_overrides == {0: "0", 1: "11", 2: "29"}
    assert data["expert_text"][data["relative_text"].index("0.9")] == "1"
    assert "of the worst expert" in loss.says
    assert "No token came to 1 matrix." in loss.says


def share(index, value, kind="plain", axis="column", **where):
    place = {"layer": 11, "module": "down", "expert": None} | where
    return place | {"kind": kind, "axis": axis, "index": index, "share": value} | SETTING


def test_the_pair_that_compensation_hides_is_told_with_both_shares():
    lines = [share(1229, 0.88), share(1487, 0.116), share(5, 0.0001)]
    lines += [share(1229, 0.006, "compensated")]
    lines += [share(i, 0.003 - i / 1e5, "compensated") for i in range(15)]
    lines += [share(1229, 0.003, "sequential"), share(1487, 0.451, "sequential")]
    (block,) = charts_sensitivity.sensitivity(found(sensitivity_lines=lines))
    assert block.body.heads == ("matrix", "where", "plain", "compensated", "sequential")
    name = "down of layer 11"
    assert rows(block)[:2] == [
        (name, "column 1229", "88%", "0.6%", "0.3%"),
        (name, "column 1487", "11.6%", "< 0.286%", "45.1%"),
    ]
    assert rows(block)[2][:2] == (name, "column 0")  # the next of the compensated kind, below a line
    assert block.body.starts == {2}
    assert "columns 1229 and 1487 of down of layer 11 hold 99.6% of the plain loss and 0.886% of the" in block.says


def test_one_kind_alone_has_no_reason_why_two_are_needed():
    (block,) = charts_sensitivity.sensitivity(found(sensitivity_lines=[share(3, 0.5), share(4, 0.3, axis="row")]))
    assert rows(block) == [("down of layer 11", "column 3", "50%"), ("down of layer 11", "row 4", "30%")]
    assert "Both kinds" not in block.says


def test_of_modules_that_read_the_same_input_one_stands_for_all():
    lines = [share(17, 0.5 + i / 100, module=module) for i, module in enumerate("qkv")]
    lines += [share(17, 0.4, module=module, axis="row") for module in "qkv"]
    (block,) = charts_sensitivity.sensitivity(found(sensitivity_lines=lines))
    assert [(row[0][0], row[1]) for row in rows(block)] == [("v", "column 17"), ("v", "row 17"), ("q", "row 17"),
                                                            ("k", "row 17")]  # fmt: skip


def test_two_settings_are_shown_and_others_counted():
    table = [
        matrix(layer, "q", relative=0.1 * bits, top_1e3=0.2) | {"bits": bits, "group": group}
        for bits, group, count in ((2, None, 1), (3, None, 3), (4, 16, 2), (8, 16, 1))
        for layer in range(count)
    ]
    blocks = charts_sensitivity.sensitivity(found(sensitivity=table))
    assert [block.title for block in blocks] == [
        "Loss of rounding, plain (3 bits, one grid for each row)",
        "Concentration, plain (3 bits, one grid for each row)",
        "Loss of rounding, plain (4 bits, groups of 16)", "Concentration, plain (4 bits, groups of 16)",
    ]  # fmt: skip
    assert blocks[0].says.endswith("2 more settings in the run.")
    assert set(cells(blocks[2])["relative"]) == {0.4}


def pattern(name, score, layer=0, module="q", *, found=True, **place):
    spans = {"row_start": 0, "row_end": 9, "column_start": 0, "column_end": 9}
    row = matrix(layer, module, kind="compensated") | {"pattern": name, "score": score, "found": found, "axis": "row"}
    row.pop("num_tokens")
    return row | spans | {"null_score": 1.2, "p_value": 0.01 if found else 0.5} | place


def test_patterns_are_counted_listed_and_told():
    table = [
        pattern("row", 5.0, row_start=3, row_end=4), pattern("row", 9.0, 1, row_start=7, row_end=8),
        pattern("row", 1.1, 2, found=False), pattern("rotary", 0.85, 1),
        pattern("attention_head", 3.0, 1, head=2, row_start=16, row_end=24),
        pattern("partial_row", 4.0, 1, "o", row_start=5, row_end=6, column_start=8, column_end=16, aligned=True),
        pattern("column", 8.0, 1, "o", axis="column", column_start=6, column_end=7),
        pattern("unstructured", 0.4, 1) | {"found": None, "axis": None},
    ]  # fmt: skip
    counts, strongest, told = charts_patterns.patterns(found(patterns=table))
    assert counts.body.heads == ("module", "attention head", "rotary", "row", "partial row", "column")
    assert rows(counts) == [("q", "1 of 1", "1 of 1", "2 of 3", "", ""), ("o", "", "", "", "1 of 1", "1 of 1")]
    assert "compensated kind: 3 bits, one grid for each row" in counts.says
    assert rows(strongest) == [
        ("attention head", "q of layer 1", "head 2, rows 16-23", "3x", "1.2x", "0.01"),
        ("rotary", "q of layer 1", "all heads", "0.85", "1.2", "0.01"),
        ("row", "q of layer 1", "row 7", "9x", "1.2x", "0.01"),
        ("row", "q of layer 0", "row 3", "5x", "1.2x", "0.01"),
        ("partial row", "o of layer 1", "row 5, columns 8-15, along a head", "4x", "1.2x", "0.01"),
        ("column", "o of layer 1", "column 6", "8x", "1.2x", "0.01"),
    ]
    texts = dict(rows(told))
    assert texts["q of layer 0"] == "row 3 (5x)"
    assert texts["q of layer 2"] == "none"
    assert texts["q of layer 1"] == "row 7 (9x); head 2 (3x); rotary pairs alike (r = 0.85); 40% unstructured"


def test_matrices_are_told_by_their_plain_loss():
    losses = [matrix(layer, "q", kind=kind, relative=size) for layer, kind, size in
              ((0, "plain", 0.1), (0, "compensated", 0.9), (1, "plain", 0.5))]  # fmt: skip
    table = [pattern("row", 5.0, layer) for layer in (0, 1)]
    told = charts_patterns.patterns(found(patterns=table, sensitivity=losses))[-1]
    assert [row[0] for row in rows(told)] == ["q of layer 1", "q of layer 0"]
    assert "largest losses first" in told.says


def test_where_chance_does_the_same_no_pattern_is_listed():
    (_, none, _) = charts_patterns.patterns(found(patterns=[pattern("row", 1.1, found=False)]))
    assert none.says == "No pattern was found in any matrix."
    assert none.body is None


def effect(method, data="topics, 1 x 64", clean=12.0, **metrics):
    about = {"mode": "compress", "method": method, "data": data}
    baseline = {"perplexity": clean, "average_bits": 32.0, "kl": 0.0, "top1_agreement": 1.0, "stored_bits": 32.0}
    return [about | {"metric": name, "value": value, "baseline": baseline[name]} for name, value in metrics.items()]


def test_compressors_are_listed_below_the_model_as_it_is():
    table = effect("absmax 8 bits row", perplexity=12.6, kl=0.01, top1_agreement=0.97, average_bits=8.02)
    table += effect("spqr 3 bits", perplexity=24.0, kl=0.5, top1_agreement=0.5, average_bits=4.2, stored_bits=4.75)
    (block, chart) = charts_compress.compressors(found(effects=[*table, *effect_of_attack()]))
    assert block.body.heads == (
        "compressor", "average bits", "stored bits", "perplexity", "KL in nats", "same token in %",
    )  # fmt: skip
    assert rows(block) == [
        ("model as it is", "32", "", "12.00", "", ""),
        ("spqr 3 bits", "4.2", "4.75", "24.00", "0.500", "50.0"),
        ("absmax 8 bits row", "8.02", "", "12.60", "0.010", "97.0"),
    ]
    assert [row[3].change for row in block.body.rows] == ["", times(2.0), times(1.05)]
    assert "on topics, 1 x 64." in block.says
    assert isinstance(chart.body.y_scale, LogScale)
    (points,) = [each.data_source.data for each in chart.body.renderers if isinstance(each.glyph, Scatter)]
    assert points["bits"].tolist() == [4.2, 8.02]
    assert points["perplexity"].tolist() == [24.0, 12.6]
    assert [span.location for span in chart.body.center if isinstance(span, Span)] == [12.0]
    assert [key.label for key in chart.keys] == ["spqr 3 bits", "absmax 8 bits row", "model as it is: 12"]
    (labels,) = [each for each in chart.body.renderers if isinstance(each.glyph, Text)]
    assert labels.data_source.data["_label"] == ["spqr 3 bits", "absmax 8 row"]


def effect_of_attack():
    return [attack | {"metric": "perplexity", "data": "x", "value": 99.0, "baseline": 12.0} for attack in attacks()]


def test_a_perplexity_without_a_place_is_named():
    table = effect("a 1 bit", perplexity=math.inf, average_bits=1.0) + effect("b", perplexity=13.0, average_bits=2.0)
    table += effect("c", perplexity=14.0)
    _, chart = charts_compress.compressors(found(effects=table))
    assert "Without a place here: a 1 bit (∞); c (14)." in chart.says
    assert [key.label for key in chart.keys] == ["b", "model as it is: 12"]


def test_every_text_has_its_own_rows_and_chart():
    table = effect("a", "one", perplexity=13.0, average_bits=2.0)
    table += effect("a", "two", 20.0, perplexity=23.0, average_bits=2.0)
    block, *charts = charts_compress.compressors(found(effects=table))
    assert [row[:2] + row[3:] for row in rows(block)] == [
        ("model as it is", "one", "12.00"), ("a", "one", "13.00"),
        ("model as it is", "two", "20.00"), ("a", "two", "23.00"),
    ]  # fmt: skip
    assert block.body.starts == {2}
    assert [chart.title for chart in charts] == ["Perplexity against bits, one", "Perplexity against bits, two"]


def error(method, layer, weight, output=None, expert=None):
    return {"method": method, "layer": layer, "module": "down", "expert": expert, "average_bits": 4.0,
            "weight_error": weight, "output_error": output}  # fmt: skip


def test_errors_are_of_outputs_where_these_are_known_and_the_worst_are_named():
    table = [error("gptq", layer, 0.5, 0.01 * (layer + 1)) for layer in range(5)] + [error("gptq", 0, 0.9, None, 7)]
    table += [error("rtn", layer, 0.1 * (layer + 1)) for layer in range(3)]
    gptq, rtn = charts_compress.compressors(found(compressions=table))
    assert sorted(cells(gptq)["output_error"]) == [0.01, 0.02, 0.03, 0.04, 0.05]
    assert "most: down of layer 4 (5%), down of layer 3 (4%) and down of layer 2 (3%)." in gptq.says
    np.testing.assert_allclose(sorted(cells(rtn)["weight_error"]), [0.1, 0.2, 0.3])
    assert "How far the weights" in rtn.says


def test_more_compressors_than_maps_are_counted():
    blocks = charts_compress.compressors(found(compressions=[error(f"rtn {i} bits", 0, 0.1) for i in range(9)]))
    assert len(blocks) == 6
    assert blocks[0].says.endswith("3 more compressors are in the run's table.")


def test_prescriptions_are_listed_in_their_order():
    (block,) = charts_prescribe.prescriptions(found(prescriptions=compress_rows.prescriptions()))
    first, second, third, fourth, fifth = rows(block)
    assert first[:2] == ("keep module", "down of layer 2, expert 1")
    assert first[3:] == ("sensitivity.relative", "0.36", "0.1")
    assert second == ("keep sinks", "keys and values of 4 tokens", "Rounding it costs much.", "heads.sink_position",
                      "0.36", "")  # fmt: skip
    assert third[1] == "up of layer 2, rows 7 14"
    assert fourth == ("not judged", "", "Nobody looked.", "", "", "0.1")
    assert fifth == ("unnamed", "", "", "sensitivity.relative", "NaN", "0.1")


def test_what_was_compressed_is_no_attack(tmp_path):
    run = write_run(tmp_path / "run", ["compressions", "effects"], empty=["effects"])
    run.add("effects", "spqr", compress_rows.effects())
    page = Page.read(write_report(run))
    assert page.headings["h2"] == ["Summary", "Compressors", "Provenance"]
    missing = page.text.partition("Not measured in this run:")[2]
    assert "What massive weights do" in missing
    assert "Compressors" not in missing


def test_attacks_are_no_compressors(tmp_path):
    run = write_run(tmp_path / "run", ["effects"], empty=["effects"])
    run.add("effects", "attacks", effect_of_attack())
    page = Page.read(write_report(run))
    assert page.headings["h2"] == ["Summary", "What massive weights do", "Provenance"]
    assert "Compressors" in page.text.partition("Not measured in this run:")[2]


@pytest.mark.parametrize("left_out", [*TABLES, None])
def test_a_page_comes_out_without_each_table(tmp_path, left_out):
    page = Page.read(write_report(write_run(tmp_path / "run", [name for name in TABLES if name != left_out])))
    shown = [title for title in page.headings["h2"] if title in TITLES]
    without = {"patterns": TITLES[1], "compressions": TITLES[2], "prescriptions": TITLES[3]}.get(left_out)
    assert shown == [title for title in TITLES if title != without]


def test_hostile_texts_stay_texts(full_page):
    assert full_page.open == []
    assert "</script><i>topics</i>, 2 x 64" in full_page.text
    assert "Errors of rtn <b>4 bits</b> $$x^2$$</script>" in full_page.headings["h3"]
    assert "columns 3 and 9 of down of layer 2, expert 1 hold 97% of the plain loss" in full_page.text
    for text in HOSTILE:
        table = effect(text, text, perplexity=13.0, average_bits=2.0)
        blocks = charts_compress.compressors(found(effects=table, compressions=[error(text, 0, 0.1)]))
        assert [block.kind for block in blocks] == ["listing", "chart", "chart"]
        json.dumps(dict(json_item(blocks[1].body)), allow_nan=False)


def test_labels_do_not_lie_on_each_other():
    across, heights = np.array([0.1, 0.11, 0.12, 0.9]), np.array([50.0, 52.0, 54.0, 53.0])
    put = label_heights(across, heights, across > 0.5, 51.0)
    assert put[3] == pytest.approx(60)  # off the line
    assert np.diff(np.sort(put[:3])).min() >= 14
    assert (np.abs(put - 51.0) >= 8).all()


@given(st.floats(1e-12, 1e12), st.floats(1.01, 1e12))
def test_a_log_axis_has_labels_within_its_ends(low, times):
    labels = log_labels((low, low * times))
    assert all(low <= mark <= low * times for mark in labels)
    assert len(labels) <= 12
    assert times < 5 or labels


def any_of(name, **known):
    """Return a strategy of rows whose known columns are likely to be drawn."""
    likely = st.lists(st.fixed_dictionaries(known), min_size=8, max_size=8)
    return st.builds(lambda rows, more: [r | m for r, m in zip(rows, more, strict=False)], any_rows(name), likely)


SOME = {"layer": st.sampled_from([None, 0, 3]), "module": st.sampled_from(["q", "down", "<b>", "", None])}
KINDS = st.sampled_from(["plain", "compensated", "new", None])


@settings(max_examples=40, deadline=None)
@given(
    sensitivity=any_of("sensitivity", **SOME, kind=KINDS, group=st.sampled_from([None, 16])),
    sensitivity_lines=any_of("sensitivity_lines", **SOME, kind=KINDS, axis=st.sampled_from(["row", "column", None])),
    patterns=any_of("patterns", **SOME, axis=st.sampled_from(["row", "column", None]),
                    pattern=st.sampled_from([*compress_rows.PATTERNS, "unstructured", "new", None])),
    compressions=any_of("compressions", **SOME, method=st.sampled_from(["a", "b", None])),
    effects=any_of("effects", method=st.sampled_from(["a", "b", "", None]),
                   metric=st.sampled_from(["perplexity", "kl", "average_bits", "odd", None])),
    prescriptions=any_rows("prescriptions"),
)  # fmt: skip
def test_any_rows_give_charts_with_finite_axes(**tables):
    run = found(**tables)
    for block in [block for draw in DRAW for block in draw(run)]:
        assert block.title
        assert block.says
        if block.kind == "chart":
            x = block.body.x_range
            assert all(math.isfinite(end) for end in (x.start, x.end))
            json.dumps(dict(json_item(block.body)), allow_nan=False)
        elif block.kind == "listing":
            assert {len(row) for row in block.body.rows} <= {len(block.body.heads)}
