"""Charts of how alike states are and of the first-sentence effect, against rows worked out by hand."""

import json
import math

import pytest
from bokeh.embed import json_item
from bokeh.models import Line, VArea
from hypothesis import given, settings
from hypothesis import strategies as st

from monadnock.findings import schema
from monadnock.report import charts_similarity, write_report
from monadnock.report.parts import Findings
from tests.report.conftest import manifest
from tests.report.html_page import Page
from tests.report.test_tokens import any_rows


def found(alike=(), sentences=()):
    frames = {
        "state_similarity": schema.table("state_similarity").frame(list(alike)),
        "first_sentence": schema.table("first_sentence").frame(list(sentences)),
    }
    return Findings(manifest(), frames)


def later(layer, gap, mean, predicted=None, deviation=None, data="topics"):
    place = {"data": data, "layer": layer, "relation": "later", "gap": gap}
    return place | {"mean": mean, "predicted": predicted, "deviation": deviation}


def within(layer, relation, mean):
    return {"data": "topics", "layer": layer, "relation": relation, "gap": 0, "mean": mean}


def lines(block):
    """Return the points of each line by its column, without those that are not there."""
    points = {}
    for each in block.body.renderers:
        if isinstance(each.glyph, Line):
            data, column = each.data_source.data, each.glyph.y
            pairs = zip(data["layer"], data[column], strict=True)
            points[column] = [(x, y) for x, y in pairs if math.isfinite(y)]
    return points


def test_each_gap_has_a_line_and_a_dashed_prediction():
    rows = [later(-1, 1, 0.5, 0.5, 0.1), later(0, 1, 0.8, 0.8, 0.2), later(1, 1, 0.9, 0.9, 0.05)]
    rows += [later(-1, 2, 0.3, 0.4), later(0, 2, 0.7, 0.72)]
    (block,) = charts_similarity.alike(found(rows))
    assert lines(block) == {
        "mean_1": [(-1, 0.5), (0, 0.8), (1, 0.9)],
        "mean_2": [(-1, 0.3), (0, 0.7)],
        "predicted_2": [(-1, 0.4), (0, 0.72)],
    }
    assert [(key.label, key.mark) for key in block.keys] == [
        ("n = 1", "solid"), ("n = 2", "solid"), ("n = 2, predicted", "dashed"),
        ("n = 1: one standard deviation to each side", "area"),
    ]  # fmt: skip
    (band,) = [each.data_source.data for each in block.body.renderers if isinstance(each.glyph, VArea)]
    assert list(band["_low"]) == pytest.approx([0.4, 0.6, 0.85])
    assert list(band["_high"]) == pytest.approx([0.6, 1.0, 0.95])
    assert "behind the layer n = 1 and 2 later. Layer -1 is what enters the first layer." in block.says


def test_states_of_one_layer_have_a_line_for_each_relation():
    rows = [within(0, "neighbours", 0.6), within(0, "all pairs", 0.4), within(1, "all pairs", 0.5)]
    (block,) = charts_similarity.alike(found(rows))
    assert block.title == "Within a layer"
    assert sorted(lines(block).values()) == [[(0, 0.4), (1, 0.5)], [(0, 0.6)]]
    assert [key.label for key in block.keys] == ["neighbours", "all pairs"]
    assert block.alt.endswith("The largest similarity is 0.6, at relation neighbours, layer 0.")


def test_texts_are_never_mixed():
    rows = [later(0, 1, mean, data=data) for data, mean in (("b", 0.2), ("a", 0.9))]
    first, second = charts_similarity.alike(found(rows))
    assert (first.title, second.title) == ("Along the layers, b", "Along the layers, a")
    assert (lines(first)["mean_1"], lines(second)["mean_1"]) == ([(0, 0.2)], [(0, 0.9)])


def fall(layer, sentence, value, control=0.01, error=0.02, effect=None):
    effect = value - control if effect is None else effect
    row = {"data": "topics", "layer": layer, "sentence": sentence, "num_texts": 9, "num_heads": 4}
    return row | {"fall": value, "effect_error": error, "control_fall": control, "effect": effect}


def test_each_sentence_has_its_fall_and_control_on_one_scale_and_all_layers_are_told():
    rows = [fall(0, 2, 0.5), fall(None, 2, 0.02), fall(0, 1, 0.1), fall(1, 1, 0.2), fall(None, 1, 0.15)]
    first, second = charts_similarity.sentences(found(sentences=rows))
    assert (first.title, second.title) == ("End of sentence 1", "End of sentence 2")
    assert lines(first) == {"fall": [(0, 0.1), (1, 0.2)], "control_fall": [(0, 0.01), (1, 0.01)]}
    assert first.body.y_range.end == second.body.y_range.end == pytest.approx(0.52 * 1.06)
    assert first.says == (
        "Over all layers, attention to the first token falls by 0.15 where sentence 1 ends (4 heads, 9 texts), "
        "and falls by 0.01 at the same positions of texts where none ends: the effect holds (0.14 ± 0.02)."
    )
    assert second.says.endswith("the effect is not seen (0.01 ± 0.02).")
    (band,) = [each.data_source.data for each in first.body.renderers if isinstance(each.glyph, VArea)]
    assert list(band["_low"]) == pytest.approx([0.08, 0.18])


def test_without_the_row_of_all_layers_no_verdict_is_given():
    (block,) = charts_similarity.sentences(found(sentences=[fall(0, 1, 0.1)]))
    assert block.says == "How far attention to the first token falls there."
    assert charts_similarity.sentences(found(sentences=[fall(None, 1, 0.1)])) == []


def test_a_run_of_states_alone_is_a_whole_page(make_run):
    page = Page.read(write_report(make_run(["state_similarity", "first_sentence"])))
    assert page.headings["h2"] == ["Summary", "How alike states are", "The first-sentence effect", "Provenance"]
    assert "Along the layers, <i>topics</i>, 2 x 64" in page.headings["h3"]


LAYER = st.sampled_from([None, -1, 0, 2])
ALIKE = {"layer": LAYER, "relation": st.sampled_from(["later", "neighbours", "all pairs", "new", None])}
ALIKE["gap"] = st.sampled_from([None, -1, 0, 1, 5])
ENDS = {"layer": LAYER, "sentence": st.sampled_from([None, 1, 2])}


def rows_of(name, known):
    """Return a strategy of rows whose known columns are likely to be drawn."""
    pairs = st.lists(st.fixed_dictionaries(known), min_size=8, max_size=8)
    return st.builds(lambda rows, more: [r | m for r, m in zip(rows, more, strict=False)], any_rows(name), pairs)


@settings(max_examples=40, deadline=None)
@given(rows_of("state_similarity", ALIKE), rows_of("first_sentence", ENDS))
def test_any_rows_give_charts_with_finite_axes(alike, sentences):
    run = found(alike, sentences)
    for block in charts_similarity.alike(run) + charts_similarity.sentences(run):
        ends = block.body.x_range.start, block.body.x_range.end, block.body.y_range.start, block.body.y_range.end
        assert all(math.isfinite(end) for end in ends)
        json.dumps(dict(json_item(block.body)), allow_nan=False)
