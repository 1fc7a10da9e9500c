"""Heads, rotary halves, and patterns as the page shows them; colours."""

import re

from monadnock.explorer import colours, marks
from monadnock.explorer.pools import as_bytes
from monadnock.explorer.weights import read_weights
from tests.explorer import planted


def test_heads_of_rows_with_halves(run):
    heads = marks.heads(run.tensors("map-002-q")[1])
    assert (heads["axis"], heads["width"], heads["count"]) == ("row", 60, 10)
    assert heads["borders"] == [30]
    assert heads["partners"][:2] == [30, 31]
    assert heads["partners"][30] == 0


def test_heads_of_columns_are_not_turned(run):
    heads = marks.heads(run.tensors("map-000-o")[1] | {"pairs": "0-25 1-26"})
    assert heads["axis"] == "column"
    assert heads["borders"] == []
    assert marks.heads(run.tensors("map-001-up")[1]) is None


def test_pairs_beside_each_other_get_a_line_each_and_the_rest_is_parted():
    told = planted.facts(0, "k", heads=("row", 2, 32), pairs=" ".join(f"{n}-{n + 1}" for n in range(0, 24, 2)))
    assert marks.heads(told)["borders"] == list(range(2, 25, 2))
    told["pairs"] = "0-4 1-5 2-6 3-7"
    assert marks.heads(told)["borders"] == [4, 8]


def test_patterns_are_those_found_in_this_matrix(run):
    _, facts = read_weights(run, "map-002-q")
    found = marks.patterns(run, facts, (600, 700))
    told = [(each.title, each.label, each.kind) for each in found]
    assert told == [
        ("Rows", "row 33", "compensated"),
        ("Rows", "row 417", "compensated"),
        ("Parts of rows", "row 200, columns 100 to 199", "compensated"),
        ("Columns", "column 77", "plain"),
        ("Attention heads", "head 3, rows 180 to 239", "compensated"),
        ("Rotary", "the whole matrix", "compensated"),
        ("No structure", "what rows, columns and blocks leave", "compensated"),
        (planted.HOSTILE, "rows 10 to 19, columns 30 to 39", "sequential"),
    ]
    assert found[0].detail == "score 9.25, p 0.001, with compensation"
    assert found[2].detail == "score 3, p 0.001, keeps to heads, with compensation"
    assert found[1].box == [417, 418, 0, 700]
    assert found[6].box is None
    assert found[6].detail == "83% of the variance of log s, with compensation"
    assert [each.lines for each in found[4:6]] == ["heads", "halves"]


def test_nothing_looked_for_is_not_nothing_found(run):
    assert marks.patterns(run, read_weights(run, "map-000-o")[1], (300, 250)) is None
    told = planted.facts(2, "k")
    assert [each.label for each in marks.patterns(run, told, (600, 700))] == ["row 502"]
    assert marks.patterns(run, told | {"data": "a third text"}, (600, 700)) is None


def test_colours_go_from_light_to_dark_in_even_steps():
    shades = [int(pair, 16) for pair in re.findall("..", colours.palette())]
    assert len(shades) == 256 * 3
    light = [
        0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in zip(shades[::3], shades[1::3], shades[2::3], strict=True)
    ]
    assert light[0] > 240
    assert light[-1] < 30
    assert light == sorted(light, reverse=True)


def test_the_fitted_scale_holds_what_is_there():
    low, high = colours.fitted(as_bytes(10.0 ** planted.gaussian(99, 99) * 100))
    assert low < 2 - 0.1
    assert 2 < high < 3
    assert high - low >= 2
