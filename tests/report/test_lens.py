"""Sections on states and weights in words, against rows worked out by hand."""

import json
import math

import pytest
from bokeh.embed import json_item
from bokeh.models import Rect, Scatter
from hypothesis import given, settings
from hypothesis import strategies as st

from monadnock.findings import schema
from monadnock.findings.noise import noise_floor, told_floor
from monadnock.report import charts_first_token, charts_lens, charts_readings, write_report
from monadnock.report.parts import Findings
from monadnock.report.picker import Option, Picker, Word, WordTable, as_json, words_that_fit
from tests.report.conftest import manifest
from tests.report.html_page import Page
from tests.report.lens_rows import vector

PROMPT = {"prompt": "red\nball", "bos": True, "rows": "normalised", "words": "all"}


def found(**tables):
    return Findings(manifest(), {name: schema.table(name).frame(rows) for name, rows in tables.items()})


def said(position, dictionary, layer, top, **more):
    """Return the rows of one state: words with their amplitudes, the word's id its place in the alphabet."""
    place = {"position": position, "token_id": "abc".index("abc"[position]), "token": "abc"[position]}
    return [
        PROMPT | place | {"dictionary": dictionary, "layer": layer, "rank": rank, "word": word, "amplitude": amplitude,
                          "word_id": ord(word[-1]) - ord("a"), "noise": 0.2} | more
        for rank, (word, amplitude) in enumerate(top, 1)
    ]  # fmt: skip


def test_the_last_token_and_the_output_dictionary_are_chosen_at_first():
    rows = [
        row
        for place in (0, 1)
        for name in ("middle", "output", "input")
        for layer in (1, 0, -1)
        for row in said(place, name, layer, [("b", 0.9), (" d", 0.1)])
    ]
    (block,) = charts_lens.lens(found(lens=rows))
    (setting,) = block.body.options
    assert setting.label == "“red ball”, BOS in front"
    assert [(token.label, token.name, token.default) for token in setting.then] == [
        ("a", "position 0, “a”", False),
        ("b", "position 1, “b”", True),
    ]
    names = setting.then[1].then
    assert [(name.label, name.default) for name in names] == [("input", False), ("output", True), ("middle", False)]
    (table,) = names[1].then
    assert [label for label, _ in table.rows] == ["in", "0", "1"]
    assert table.rows[0][1] == ((Word("b", 0.9, own=True), Word(" d", 0.1)),)
    assert not setting.then[0].then[1].then[0].rows[0][1][0][0].own  # b is not the token of position 0
    assert table.floor == 0.2
    assert "approximation" in names[2].then[0].says
    assert not table.says


def test_settings_are_told_apart_and_raw_amplitudes_have_their_own_scale():
    rows = said(0, "input", 0, [("a", 0.9)])
    rows += said(0, "input", 0, [("a", 40.0), ("b", -50.0)], noise=7.5, rows="raw", words="prompt", bos=False)
    (block,) = charts_lens.lens(found(lens=rows))
    plain, raw = block.body.options
    assert raw.label == "“red ball”, no BOS, raw rows, only words of the prompt"
    (table,) = raw.then[0].then[0].then
    assert (table.floor, table.full) == (7.5, 50)
    assert plain.then[0].then[0].then[0].floor == 0.2


def test_the_noise_floor_is_the_measured_one_or_follows_from_the_width():
    assert noise_floor(4096) == pytest.approx(0.0573, abs=1e-4)
    assert [width * math.erfc(noise_floor(width) * math.sqrt(width / 2)) for width in (2, 576)] == pytest.approx([1, 1])
    assert (noise_floor(1), noise_floor(0)) == (0, 0)
    empty = schema.table("dictionaries").frame([{"dictionary": "input", "noise_floor": math.nan}])
    assert told_floor(empty, 4096) == noise_floor(4096)
    full = schema.table("dictionaries").frame([{"dictionary": "input", "noise_floor": 0.25}])
    assert told_floor(full, 4096) == 0.25


def test_without_noise_no_word_is_faint():
    (block,) = charts_lens.lens(found(lens=said(0, "input", 0, [("a", 0.9)], noise=None)))
    assert block.body.options[0].then[0].then[0].then[0].floor == 0


def test_json_holds_every_text_once_and_amplitudes_as_whole_numbers():
    words = (Word(" the", 0.12345), Word(" the", math.nan, own=True), Word(None, None), Word("\u2028", 1e300))
    picker = Picker("lens", (("Token", "buttons"),), (Option("x", (WordTable(rows=(("0", (words,)),)),)),))
    told = as_json(picker)
    assert told["texts"] == ["␣the", "(empty)", "\\u2028"]
    assert told["tree"]["options"][0]["then"][0]["rows"] == [["0", [0, 12345, ~0, None, 1, None, 2, 10**14]]]
    assert words_that_fit(100, 10, 8) == 8
    assert words_that_fit(100, 20, 8) == 5


def head_of(blocks, layer, head):
    layers = {option.label: option.then for option in blocks[0].body.options}
    return next(option for option in layers[str(layer)] if option.label == str(head))


def test_a_head_tells_both_ends_of_its_pairs():
    rows = [row for i in (1, 0) for side in ("query", "key") for row in vector("qk", 3, 2, i, side, 2.5 - i)]
    facts = {"layer": 3, "head": 2, "circuit": "qk", "singular_value": 2.5, "effective_rank": 10.04}
    (table,) = head_of(charts_readings.heads(found(readings=rows, circuits=[facts])), 3, 2).then
    assert table.says == "qk, what attends to what: largest singular value 2.5, effective rank 10."
    assert table.heads == ("", "query side", "key side")
    assert [label for label, _ in table.rows] == ["+ pair 0 (2.5)", "- pair 0", "+ pair 1 (1.5)", "- pair 1"]
    query, key = table.rows[1][1]
    assert [word.amplitude for word in query[:2]] == [-0.6, -0.3]
    assert len(key) == 8


def test_a_head_told_by_position_says_so_in_place_of_words():
    facts = {"layer": 0, "singular_value": 2.0, "effective_rank": 3.0, "position_driven": True, "offset_mass": 0.583}
    rows = [facts | {"head": head, "circuit": "qk", "offset": head} for head in range(3)]
    blocks = charts_readings.heads(found(circuits=rows, readings=vector("ov", 0, 0, 0, "reads")))
    keys = ["the query itself", "the token before", "the key 2 tokens before"]
    for head, key in enumerate(keys):
        option = head_of(blocks, 0, head)
        assert option.faint
        assert option.name == f"head {head}, driven by position"
        assert not option.then[0].rows
        assert f"driven by position, 58.3 % of its attention goes to {key}" in option.then[0].says
    assert head_of(blocks, 0, 0).then[1].heads == ("", "reads", "writes")


def test_only_the_strongest_rows_are_told():
    rows = [row for index in range(9) for row in vector("q_row", 0, 0, index, "query", float(index))]
    (table,) = head_of(charts_readings.heads(found(readings=rows)), 0, 0).then
    assert [label for label, _ in table.rows] == [f"W_q row {index} ({index})" for index in (8, 7, 6, 5)]


def test_outliers_are_listed_with_both_ends():
    rows = vector("feature", 2, None, 3, "writes", 900.0, "output") + vector("up_row", 5, None, 7, "reads", 4.5)
    (block,) = charts_readings.outliers(found(readings=rows + vector("qk", 0, 0, 0, "query")))
    feature, row = block.body.rows
    assert [(cell.text, cell.change) for cell in feature[:2]] == [("feature 3, layer 2", "900"), ("writes", "output")]
    assert feature[2].text.split("\u2002 ")[:3] == ["\\x00\\u202e", "(empty)", "␣↵"]
    assert (feature[2].change, feature[3].change) == ("0.6", "-0.6")
    assert row[0].text == "row of W_up 7, layer 5"
    assert block.body.starts == {1}


def test_the_first_token_is_drawn_in_three_layers_with_ends_of_sentences():
    rows = [
        {"prompt": "a b.", "bos": True, "layer": layer, "head": head, "position": place, "token": "x",
         "mass": 1.0 if place == 0 else (0.9 if layer == 7 else 0.1), "ends_sentence": place == 2}
        for layer in range(12) for head in range(2) for place in range(3)
    ]  # fmt: skip
    blocks = charts_first_token.first_token(found(first_token=rows))
    assert [block.title for block in blocks] == ["Layer 2", "Layer 7, the most attention to the first token", "Layer 9"]
    cells, dots = (
        next(each.data_source.data for each in blocks[1].body.renderers if isinstance(each.glyph, glyph))
        for glyph in (Rect, Scatter)
    )
    assert sorted(zip(cells["head"], cells["_y"], cells["mass"], strict=True))[:3] == [
        (0, 1, 1),
        (0, 2, 0.9),
        (0, 3, 0.9),
    ]
    assert sorted(zip(dots["head"], dots["_y"], strict=True)) == [(0, 3), (1, 3)]
    assert "is 0.9" in blocks[1].alt


def test_hostile_texts_stay_texts(full_page, full_run):
    raw = next(text for attrs, text in full_page.scripts if attrs.get("id") == "pickers")
    assert not set("<>&\u2028") & set(raw)
    texts = {text for picker in json.loads(raw) for text in picker["texts"]}
    assert {"\\x00\\u202e", "(empty)", "␣↵", "$$x^2$$"} <= texts
    assert not [text for text in texts if "\u202e" in text or "\x00" in text or " " in text]
    assert "Picking needs JavaScript; the run's table “lens” holds the same words" in full_page.text
    boxes = [attrs["id"] for tag, attrs in full_page.tags if attrs.get("class") == "picker"]
    assert boxes == [picker["id"] for picker in json.loads(raw)]


def test_a_page_without_words_has_no_picker(make_run):
    page = Page.read(write_report(make_run(["heads"])))
    assert [attrs.get("id") for attrs, _ in page.scripts] == ["charts", None, None]


@pytest.mark.parametrize("kind", ["qk", "feature"])
def test_readings_of_one_kind_leave_the_other_section_with_its_sentence(make_run, kind):
    run = make_run([])
    run.add("readings", "one", vector(kind, 1, 0 if kind == "qk" else None, 2, "reads"))
    text = Page.read(write_report(run)).text
    assert ("no head was read" in text) == (kind == "feature")
    assert ("The table has no rows of outliers" in text) == (kind == "qk")


small = st.sampled_from([None, -1, 0, 1, 3])
words = st.sampled_from([None, "", " a", "</script>", "\u2028\x00", "$$x$$"])
amplitudes = st.none() | st.floats()
lens_row = st.fixed_dictionaries(
    {
        "prompt": words, "bos": st.sampled_from([None, True, False]), "position": small, "token_id": small,
        "token": words, "dictionary": st.sampled_from([None, "", "input", "output", "middle 3"]), "layer": small,
        "rank": small, "word_id": small, "word": words, "amplitude": amplitudes,
        "rows": st.sampled_from([None, "raw", "normalised"]), "words": st.sampled_from([None, "all", "prompt"]),
    }
)  # fmt: skip
first_row = st.fixed_dictionaries(
    {
        "prompt": words, "bos": st.sampled_from([None, True]), "layer": small, "head": small, "token": words,
        "position": st.sampled_from([None, 0, 1, 70]), "mass": amplitudes,
        "ends_sentence": st.sampled_from([None, True, False]),
    }
)  # fmt: skip
reading = st.fixed_dictionaries(
    {
        "kind": st.sampled_from([None, "qk", "ov", "q_row", "k_row", "feature", "down_column", "new"]), "layer": small,
        "head": small, "index": small, "side": st.sampled_from([None, "query", "key", "reads", "writes"]),
        "strength": amplitudes, "dictionary": words, "sign": st.sampled_from([None, 1, -1]), "rank": small,
        "word": words, "amplitude": amplitudes,
    }
)  # fmt: skip
circuit = st.fixed_dictionaries(
    {
        "layer": small, "head": small, "circuit": st.sampled_from([None, "qk", "ov", "new"]), "offset": small,
        "singular_value": amplitudes, "effective_rank": amplitudes, "offset_mass": amplitudes,
        "position_driven": st.sampled_from([None, True, False]),
    }
)  # fmt: skip


def rows_of(row):
    return st.lists(row, max_size=8)


@settings(max_examples=40, deadline=None)
@given(rows_of(lens_row), rows_of(first_row), rows_of(reading), rows_of(circuit))
def test_any_rows_draw(lens, first_token, readings, circuits):
    run = found(lens=lens, first_token=first_token, readings=readings, circuits=circuits)
    for block in charts_lens.lens(run) + charts_readings.heads(run):
        told = json.dumps(as_json(block.body), allow_nan=False)
        assert "\\u2028" not in told.replace("\\\\u2028", "")
    for block in charts_first_token.first_token(run):
        json.dumps(dict(json_item(block.body)), allow_nan=False)
    for block in charts_readings.outliers(run):
        assert all(len(row) == len(block.body.heads) for row in block.body.rows)
