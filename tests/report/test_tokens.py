"""Charts of token dictionaries, against rows worked out by hand."""

import json
import math

import pytest
from bokeh.embed import json_item
from bokeh.models import Line, LinearColorMapper, Rect, Text
from hypothesis import given, settings
from hypothesis import strategies as st

from monadnock.findings import schema
from monadnock.report import charts_tokens, write_report
from monadnock.report.parts import Findings
from tests.report.conftest import manifest
from tests.report.html_page import Page

TABLES = charts_tokens.SECTIONS[0].tables


def drawn(**rows):
    frames = {name: schema.table(name).frame(list(rows.get(name, []))) for name in TABLES}
    return {block.title: block for block in charts_tokens.tokens(Findings(manifest(), frames))}


def known(*, tied=False):
    facts = {"num_tokens": 49152, "width": 576, "positive_share": 0.988602, "positive_error": 0.001859, "tied": tied}
    return [facts | {"dictionary": "input", "mean_norm": 3.2}, facts | {"dictionary": "output", "own_correlation": 0.5}]


def cells(block):
    return [[cell.text for cell in row] for row in block.body.rows]


def data(plot, glyph):
    return [each.data_source.data for each in plot.renderers if isinstance(each.glyph, glyph)]


def test_each_dictionary_has_a_column():
    block = drawn(dictionaries=known())["Dictionaries"]
    assert block.body.heads == ("", "input", "output")
    rows = {row[0]: row[1:] for row in cells(block)}
    assert rows["tokens"] == ["49,152", "49,152"]
    assert rows["pairs with a positive product"] == ["98.9% ± 0.2%"] * 2
    assert rows["mean norm of a row"] == ["3.2", "(none)"]
    assert rows["correlation with the input rows"] == ["(none)", "0.5"]


def test_one_matrix_is_shown_once_and_said_to_be_one():
    values = [
        {"dictionary": name, "rank": rank, "value": 8.0 / rank} for name in ("input", "output") for rank in (1, 2)
    ]
    pairs = [{"dictionary": name, "word_a": "a", "word_b": "b", "similarity": 0.5} for name in ("input", "output")]
    blocks = drawn(dictionaries=known(tied=True), singular_values=values, word_similarity=pairs)
    assert list(blocks) == ["Dictionaries", "Singular values", "Similarity of words: input and output"]
    assert blocks["Dictionaries"].body.heads == ("", "input and output")
    assert "are one matrix" in blocks["Dictionaries"].says
    assert "correlation with the input rows" not in {row[0] for row in cells(blocks["Dictionaries"])}
    assert [key.label for key in blocks["Singular values"].keys] == ["input and output"]


def test_singular_values_are_lines_and_of_many_some_are_drawn():
    values = [{"dictionary": "input", "rank": rank, "value": 4096.0 / rank} for rank in range(1, 4097)]
    (line,) = data(drawn(singular_values=values)["Singular values"].body, Line)
    assert list(line["rank"][:64]) == list(range(1, 65))
    assert list(line["rank"][64:67]) == [68.0, 85.0, 102.0]  # every 17th: 1 + 4096 // 256
    assert line["value"][64] == pytest.approx(4096 / 68)


def test_words_stand_against_words_with_their_similarity_in_the_cell():
    given_pairs = [("red", "red", 1.0), ("red", "long", -0.004), ("long", "red", math.nan), ("long", "long", -0.256)]
    rows = [{"dictionary": "input", "word_a": a, "word_b": b, "similarity": s} for a, b, s in given_pairs]
    block = drawn(word_similarity=rows)["Similarity of words: input"]
    (cell,) = data(block.body, Rect)
    assert list(zip(cell["_x"], cell["_y"], cell["similarity_text"], strict=True)) == [
        (0, 0, "1"), (1, 0, "-0.004"), (0, 1, "NaN"), (1, 1, "-0.256")
    ]  # fmt: skip
    (written,) = data(block.body, Text)
    assert written["value"] == ["1", "0", "", "-.26"]
    (fill,) = [each.glyph.fill_color for each in block.body.renderers if isinstance(each.glyph, Rect)]
    assert isinstance(fill.transform, LinearColorMapper)
    assert (fill.transform.low, fill.transform.high) == (-1, 1)
    assert block.alt.endswith("The largest similarity of two words is -0.004, at word a red, word b long.")
    assert not block.wide


def test_of_many_words_the_similarities_are_told_while_hovering_only():
    words = [f"w{i}" for i in range(20)]
    rows = [{"dictionary": "input", "word_a": a, "word_b": b, "similarity": 0.5} for a in words for b in words]
    block = drawn(word_similarity=rows)["Similarity of words: input"]
    assert data(block.body, Text) == []
    assert block.wide


def near(relation, asked, words):
    rows = [{"relation": relation, "asked": asked, "rank": rank, "word": word} for rank, word in enumerate(words, 1)]
    return rows[::-1]  # whatever the order in the table


def test_nearest_words_are_listed_and_the_same_list_is_not_repeated():
    first, other = [" a", "b", "c", "d", "e", "f"], ["x"]
    rows = [*near("input", "red", first), *near("output", "red", first), *near("continuation", "red", other)]
    block = drawn(nearest_words=rows)["Nearest words"]
    assert block.body.heads == ("word", "nearest in input", "nearest in output", "continuation")
    assert cells(block) == [["red", "␣a · b · c · d · e", "the same", "x"]]
    tied = drawn(nearest_words=rows, dictionaries=known(tied=True))["Nearest words"]
    assert tied.body.heads == ("word", "nearest", "continuation")
    assert cells(tied) == [["red", "␣a · b · c · d · e", "x"]]
    assert tied.says.endswith("Input and output dictionary are one matrix.")


def test_of_many_words_the_first_are_listed():
    rows = [row for word in range(50) for row in near("input", f"w{word}", ["x"])]
    block = drawn(nearest_words=rows)["Nearest words"]
    assert len(block.body.rows) == 40
    assert block.says.endswith("Of 50 words the first 40 are listed.")


def test_continuations_are_told_text_by_text_beside_their_control():
    row = {"pairs": 100, "rank": 40.0, "control_rank": 50.0, "top_share": 0.2, "control_share": 0.1}
    row |= {"better_share": 0.62}
    blocks = charts_tokens.tokens(
        Findings(
            manifest(),
            {"continuations": schema.table("continuations").frame([row | {"data": "a"}, row | {"data": "b"}])},
        )
    )
    assert [block.says[-14:] for block in blocks] == ["The text is a.", "The text is b."]
    assert "at 40 in the median (next tokens dealt out anew: 50)" in blocks[0].says


def test_hostile_words_are_made_visible(full_page, findings):
    blocks = charts_tokens.tokens(findings)
    maps = [block for block in blocks if block.title.startswith("Similarity")]
    assert len(maps) == 2
    labels = [label for block in maps for axis in block.body.axis for label in axis.major_label_overrides.values()]
    assert {type(label).__name__ for label in labels} == {"PlainText"}
    assert {"␣the", "(empty)", "\\x00\\u202e", "$$x^2$$"} <= {label.text for label in labels}
    listed = next(block for block in blocks if block.title == "Nearest words")
    assert "\u202e" not in str(cells(listed))
    assert "The text is <i>topics</i>, 2 x 64." in full_page.text


def test_a_run_of_readings_alone_is_a_whole_page(make_run):
    page = Page.read(write_report(make_run(list(TABLES))))
    assert page.headings["h2"] == ["Summary", "Token dictionaries", "Provenance"]


def text():
    return st.sampled_from([None, "", "input", "output", "continuation", "a", "</b>", "$$x$$", "long" * 9, "long" * 10])


def real():
    return st.none() | st.floats()


def any_rows(name):
    kinds = {"String": text(), "Float64": real(), "Boolean": st.none() | st.booleans()}
    columns = schema.table(name).frame([]).schema
    whole = st.none() | st.integers(-3, 2**40)
    row = st.fixed_dictionaries({column: kinds.get(str(dtype), whole) for column, dtype in columns.items()})
    return st.lists(row, max_size=8)


@settings(max_examples=40, deadline=None)
@given(st.fixed_dictionaries({name: any_rows(name) for name in TABLES}))
def test_any_rows_give_charts_with_finite_axes(rows):
    frames = {name: schema.table(name).frame(each) for name, each in rows.items()}
    for block in charts_tokens.tokens(Findings(manifest(), frames)):
        assert block.says
        if block.kind == "chart":
            ends = block.body.x_range.start, block.body.x_range.end, block.body.y_range.start, block.body.y_range.end
            assert all(math.isfinite(end) for end in ends)
            json.dumps(dict(json_item(block.body)), allow_nan=False)
        elif block.kind == "listing":
            assert {len(row) for row in block.body.rows} <= {len(block.body.heads)}
