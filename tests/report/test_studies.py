"""Charts of studies, against rows worked out by hand."""

import json
import math

import numpy as np
import polars as pl
import pytest
from bokeh.embed import json_item
from bokeh.models import LogColorMapper, Rect, Scatter, Text
from hypothesis import given, settings
from hypothesis import strategies as st

from monadnock.findings import schema
from monadnock.report import charts_studies, write_report
from monadnock.report.parts import Findings
from tests.report.conftest import manifest
from tests.report.html_page import Page

PROMPT = "Summer is warm."
PLACE = {"study": "bos", "prompt": PROMPT}


def state(name, layer, position, token, top1=2.0, **more):
    row = PLACE | {"input": name, "layer": layer, "position": position, "token": token, "top1": top1}
    return row | {"massive": top1 > 100, "attention": 0.1, "uniform": 0.2, "num_sink_heads": 0} | more


# two inputs of a model with 6 layers and 4 heads: massive where BOS is, behind layer 2
SMALL = [
    state("no BOS", layer, place, token) for layer in range(6) for place, token in enumerate(["Summer", " is"])
] + [
    state("BOS at the start", layer, place, token, 500.0 if place == 0 and layer == 2 else 3.0,
          attention=0.9 - 0.4 * place, num_sink_heads=2 - place, inserted=place == 0)
    for layer in range(6) for place, token in enumerate(["<s>", "Summer", " is"])
]  # fmt: skip


def found(inputs, maps=()):
    frames = {"inputs": schema.table("inputs").frame(inputs), "maps": schema.table("maps").frame(list(maps))}
    return Findings(manifest(), frames)


def drawn(plot, glyph):
    return [each.data_source.data for each in plot.renderers if isinstance(each.glyph, glyph)]


def test_inputs_stand_below_each_other_and_each_token_has_its_row():
    sizes, keys = charts_studies.inputs(found(SMALL))
    assert (sizes.title, keys.title) == ("BOS in four places: largest |h|", "BOS in four places: attention")
    (cells,) = drawn(sizes.body, Rect)
    rows = list(zip(cells["layer"], cells["_y"], cells["top1"], cells["token_text"], strict=True))
    assert (0.0, 1.0, 2.0, "Summer") in rows
    assert (2.0, 4.0, 500.0, "<s>") in rows  # below the two rows of the first input and the names of both
    assert len(rows) == 6 * (2 + 3)
    (names,) = drawn(sizes.body, Text)
    assert list(zip(names["name"], names["y"], strict=True)) == [("no BOS", 0.0), ("BOS at the start", 3.0)]
    labels = {y: label.text for y, label in sizes.body.yaxis[0].major_label_overrides.items()}
    assert labels == {1: "0 Summer", 2: "1 ␣is", 4: "0 <s>", 5: "1 Summer", 6: "2 ␣is"}
    (dots,) = drawn(sizes.body, Scatter)
    assert (list(dots["layer"]), list(dots["_y"])) == ([2.0], [4.0])


def test_all_inputs_share_one_scale_and_attention_goes_from_none_to_all():
    sizes, keys = charts_studies.inputs(found(SMALL))
    (fill,) = [each.glyph.fill_color for each in sizes.body.renderers if isinstance(each.glyph, Rect)]
    assert isinstance(fill.transform, LogColorMapper)
    assert (fill.transform.low, fill.transform.high) == pytest.approx((2 / 1.6, 500 * 1.6))
    (share,) = [each.glyph.fill_color for each in keys.body.renderers if isinstance(each.glyph, Rect)]
    assert (share.transform.low, share.transform.high) == (0, 1)
    (dots,) = drawn(keys.body, Scatter)
    assert set(dots["_y"]) == {4.0}  # two of four heads are half
    assert sizes.alt.endswith("The largest |h| is 500, at token <s>, layer 2. The input is: BOS at the start.")


def test_prompts_are_told_apart():
    other = [row | {"prompt": "Winter <b>is</b> " + "cold " * 30} for row in SMALL]
    blocks = charts_studies.inputs(found(SMALL + other))
    assert len(blocks) == 4
    assert blocks[0].title == "BOS in four places, “Summer is warm.”: largest |h|"
    assert blocks[2].title.startswith("BOS in four places, “Winter <b>is</b> cold")
    assert "…”" in blocks[2].title


def grown(size, front="no BOS"):
    name = f"{size} sentences, {front}"
    return [
        state(name, layer, place, f"t{place}", 500.0 if (layer, place) == (2, 1) else 3.0, study="length", prompt=name)
        | {"num_sink_heads": 3 * (place == 2)}
        for layer in range(6)
        for place in range(size)
    ]


def test_texts_that_grow_are_strips_and_short_ones_have_their_tokens_written_in():
    short, attention, long, _ = charts_studies.inputs(found([*grown(4), *grown(6), *grown(40)]))
    assert short.title == "Short texts: largest |h|"
    (cells,) = drawn(short.body, Rect)
    assert sorted(zip(cells["_y"], cells["position"], strict=True)) == [(0.0, float(i)) for i in range(4)] + [
        (1.0, float(i)) for i in range(6)
    ]
    words, names = drawn(short.body, Text)
    assert words["word"][:4] == ["t0", "t1", "t2", "t3"]
    assert words["ink"][:3] == ["#ffffff", "#000000", "#ffffff"]  # black on the bright cell of the massive token
    assert names["name"] == ["4 sentences, no BOS", "6 sentences, no BOS"]
    assert list(drawn(short.body, Scatter)[0]["position"]) == [1.0, 1.0]
    assert list(drawn(attention.body, Scatter)[0]["position"]) == [2.0, 2.0]  # 18 of 24 heads
    assert long.title == "Longer texts: largest |h|"
    assert len(drawn(long.body, Rect)[0]["position"]) == 40
    assert len(drawn(long.body, Text)) == 1  # names only


def pair(name, layer, head, query, key, mass, **more):
    return PLACE | {"input": name, "layer": layer, "head": head, "query": query, "key": key, "mass": mass} | more


def test_maps_have_a_block_for_each_layer_and_head_and_tell_tokens_while_hovering():
    maps = [
        pair("BOS at the start", layer, head, query, key, 1 / (query + 1))
        for layer, head in ((3, None), (0, None), (3, 1))
        for query in range(3)
        for key in range(query + 1)
    ]
    blocks = charts_studies.maps(found(SMALL, maps))
    assert [block.title for block in blocks] == [
        "Layer 0, mean over heads: BOS in four places",
        "Layer 3, mean over heads: BOS in four places",
        "Layer 3, head 1: BOS in four places",
    ]
    (cells,) = drawn(blocks[0].body, Rect)
    assert sorted(zip(cells["_y"], cells["key"], cells["mass"], strict=True)) == [
        (1.0, 0.0, 1.0), (2.0, 0.0, 0.5), (2.0, 1.0, 0.5), (3.0, 0.0, 1 / 3), (3.0, 1.0, 1 / 3), (3.0, 2.0, 1 / 3)
    ]  # fmt: skip
    assert list(zip(cells["token_text"], cells["_key_text"], strict=True))[-1] == ("␣is", "␣is")
    assert (cells["token_text"][2], cells["_key_text"][2]) == ("Summer", "Summer")


def test_of_texts_that_grow_one_layer_of_the_short_ones_without_bos_is_drawn():
    def kept(name, layer, size):
        extra = {"study": "length", "prompt": name}
        return [pair(name, layer, None, query, 0, 0.5, **extra) for query in range(size)]

    rows = [row for layer in (0, 3) for size in (4, 40) for row in kept(f"{size} sentences, no BOS", layer, size)]
    rows += kept("4 sentences, BOS", 3, 5)
    (block,) = charts_studies.maps(found([*grown(4), *grown(40)], rows))
    assert block.title == "Layer 3, mean over heads: Texts of growing length"
    (names,) = drawn(block.body, Text)
    assert names["name"] == ["4 sentences, no BOS"]


def test_long_inputs_are_strips_behind_the_shown_layer():
    rows = [state("no BOS", layer, place, "t", 2.0 + layer) for place in range(200) for layer in range(6)]
    sizes, keys = charts_studies.inputs(found(rows))
    assert (sizes.title, keys.title) == ("BOS in four places: largest |h|", "BOS in four places: attention")
    (cells,) = drawn(sizes.body, Rect)
    assert len(cells["position"]) == 200
    assert set(cells["top1"]) == {4.0}
    assert sizes.body.height < 300


def test_of_long_maps_one_layer_is_drawn_without_what_is_next_to_nothing():
    maps = [
        pair("no BOS", layer, None, query, key, 0.5 if key == 0 else 0.001)
        for layer in (0, 3)
        for query in range(100)
        for key in range(query + 1)
    ]
    (block,) = charts_studies.maps(found([], maps))
    assert block.title == "Layer 3, mean over heads: BOS in four places"
    assert block.says.endswith(" Below 1% nothing is drawn.")
    (cells,) = drawn(block.body, Rect)
    assert sorted(cells["_y"]) == [float(query + 1) for query in range(100)]
    assert set(cells["key"]) == {0.0}
    assert block.body.height < 100 * 12
    attention = [row | {"study": "attention"} for row in maps]
    assert len(charts_studies.maps(found([], attention))) == 2


def texts(model):
    """Return every string of a chart."""
    if isinstance(model, str):
        return {model}
    parts = model.values() if isinstance(model, dict) else model if isinstance(model, list) else ()
    return set().union(*(texts(part) for part in parts))


def test_hostile_prompts_and_tokens_are_made_visible(full_page, findings):
    assert any("“<b>Winter</b> </script> $$x$$ \\u202e”" in heading for heading in full_page.headings["h3"])
    blocks = charts_studies.inputs(findings) + charts_studies.maps(findings)
    seen = set().union(*(texts(json.loads(json.dumps(dict(json_item(block.body))))) for block in blocks))
    assert not [text for text in seen if "\u202e" in text or "\x00" in text]
    assert {"3 $$x^2$$", "5 (empty)", "␣↵", "4 \\x00\\u202e"} <= seen
    labels = [label for block in blocks for axis in block.body.yaxis for label in axis.major_label_overrides.values()]
    assert {type(label).__name__ for label in labels} == {"PlainText"}  # `$$x^2$$` on an axis is no formula


def test_a_run_of_studies_alone_is_a_whole_page(make_run):
    page = Page.read(write_report(make_run(["inputs", "maps"])))
    assert page.headings["h2"] == ["Summary", "Chosen inputs", "Attention maps", "Provenance"]
    assert "BOS is massive wherever it stands." in page.text


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "study": st.sampled_from(["bos", "length", "attention", "new", None]),
                "input": st.sampled_from(["no BOS", "BOS at the start", "8 sentences, BOS", None]),
                "prompt": st.sampled_from(["a", "b", None]),
                "layer": st.sampled_from([None, 0, 2, 3]),
                "position": st.sampled_from([None, 0, 1, 5, 20]),
                "token": st.sampled_from(["a", "", None]),
                "top1": st.none() | st.floats(),
                "massive": st.sampled_from([True, False, None]),
                "attention": st.none() | st.floats(),
                "num_sink_heads": st.sampled_from([None, 0, 4]),
            }
        ),
        max_size=10,
    )
)
def test_any_rows_give_charts_with_finite_axes(rows):
    maps = [
        {name: row[name] for name in ("study", "input", "prompt", "layer")}
        | {"head": None, "query": row["position"], "key": 0, "mass": row["attention"]}
        for row in rows
    ]
    run = found(rows, maps)
    for block in charts_studies.inputs(run) + charts_studies.maps(run):
        ends = block.body.x_range.start, block.body.x_range.end, block.body.y_range.start, block.body.y_range.end
        assert all(math.isfinite(end) for end in ends)
        json.dumps(dict(json_item(block.body)), allow_nan=False)


def test_black_and_white_are_chosen_by_the_colour():
    assert charts_studies._SHARE.ink(np.array([0.1, 0.9, math.nan])) == ["#ffffff", "#000000", "#000000"]
    assert pl.Series(charts_studies.Scale((1.0, 100.0), log=True).ink(np.array([2.0, 90.0]))).to_list() == [
        "#ffffff",
        "#000000",
    ]
