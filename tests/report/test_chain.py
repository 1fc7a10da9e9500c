"""The section on the causal chain: the sentences, the table and the marks, against rows worked out by hand."""

import json
import math

import pytest
from bokeh.embed import json_item
from bokeh.models import Scatter, Span
from hypothesis import given, settings

from monadnock.findings import schema
from monadnock.findings.chain_links import LINKS
from monadnock.findings.summary_chain import paragraph
from monadnock.report import charts_chain
from monadnock.report.parts import Findings
from monadnock.report.theme import GREEN, VERMILION
from tests.report.chained import DATA, SHARE, any_chain, chain_rows, row
from tests.report.conftest import manifest


def blocks(rows):
    frame = schema.table("chain").frame(rows)
    return {block.title: block for block in charts_chain.chain(Findings(manifest(), {"chain": frame}))}


def marks(block):
    """Return the marks of a chart as {colour: [(rung, value), ...]}."""
    found = {}
    for renderer in block.body.renderers:
        if isinstance(renderer.glyph, Scatter):
            data, glyph = renderer.data_source.data, renderer.glyph
            found.setdefault(glyph.fill_color, []).append(list(zip(data["rung"], data[glyph.x], strict=True)))
    return found


def test_the_sentences_are_those_of_the_paragraph():
    block = blocks(chain_rows())["In words"]
    told = " ".join([block.says, *(passage.rest for passage in block.body)])
    assert told == paragraph(schema.table("chain").frame(chain_rows()))
    assert [(passage.label, passage.note) for passage in block.body][2:4] == [
        ("massive activation → sinks", "holds in part"),
        ("sinks → predictions", "holds in part"),
    ]


def test_every_number_of_a_tested_link_stands_in_the_table():
    body = blocks(chain_rows())["In numbers"].body
    assert body.heads == ("link", "cut by", "metric", "verdict", "clean", "cut", "at random")
    cells = [tuple(f"{cell.text} {cell.change}".strip() for cell in line) for line in body.rows]
    assert len(cells) == len(chain_rows())
    first = ("super weights → massive activation", "super 2", "start |h|", "holds", "24,832")
    assert cells[0] == (*first, "988 \N{MULTIPLICATION SIGN}0.0398", "24,832")
    assert ("massive activation → sinks", "activation-all 2", "sinks in %", "does not hold", "48.1", "51.1 +3.0",
            "48.1") in cells  # fmt: skip
    verdicts = [line[3] for line in cells if line[3]]
    assert verdicts == [
        "holds", "holds", "holds in part", "does not hold", "stays open", "holds in part", "holds", "holds",
        "does not hold",
    ]  # fmt: skip
    links = [line[0] for line in cells]
    assert body.starts == {place for place in range(1, len(links)) if links[place] != links[place - 1]}


def test_marks_stand_where_the_numbers_are():
    found = blocks(chain_rows())
    block = found["Heads with a sink"]
    seen = marks(block)
    rungs = ["activation-zero 2", "activation-all 2", "mask 2", "mask-behind 2", "zero 2"]
    assert [rung for rung, _ in seen[VERMILION][0]] == rungs
    values = dict(seen[VERMILION][0])
    assert values["activation-zero 2"] == pytest.approx(36.67) and math.isnan(values["mask-behind 2"])
    assert [dict(each)["zero 2"] for each in seen[GREEN]] == pytest.approx([100 * SHARE] * 2)
    (level,) = [each for each in block.body.center if isinstance(each, Span)]
    assert level.location == pytest.approx(100 * SHARE)
    assert "Without a place on the axis: 0 under mask-behind 2." in block.says
    assert dict(marks(found["Largest |h| of the start token"])[GREEN][0])["zero 2"] == 24000.0
    assert "mask-behind 2: 11.76 clean, 14 cut, 11.85 at random" in found["Perplexity"].alt
    assert [key.label for key in found["Perplexity"].keys][-1] == "clean model: 11.76"


def test_a_chain_that_could_not_be_tested_is_words_only():
    rows = [row(link.name, None, None, None, note="nothing is massive") for link in LINKS]
    found = blocks(rows)
    assert list(found) == ["In words", "In numbers"] and found["In numbers"].kind == "text"
    assert {passage.note for passage in found["In words"].body} == {"not tested"}


def test_two_texts_have_a_table_each():
    rows = [*chain_rows(), *(each | {"data": "other"} for each in chain_rows())]
    found = blocks(rows)
    assert {f"In numbers: {data}" for data in (DATA, "other")} < set(found)
    assert len(found) == 2 * 5


def test_without_controls_of_their_own_marks_are_left_out():
    rows = [each | {"control_min": None, "control_max": None, "control": None} for each in chain_rows()]
    seen = marks(blocks(rows)["Perplexity"])
    assert all(math.isnan(value) for each in seen[GREEN] for _, value in each)
    assert dict(seen[VERMILION][0])["super 2"] == 8122129.0


@settings(max_examples=60)
@given(any_chain())
def test_any_rows_can_be_drawn(rows):
    for block in blocks(rows).values():
        assert "None" not in block.says
        if block.kind == "chart":
            json.dumps(json_item(block.body, "x"), allow_nan=False)


def test_the_page_shows_the_chain(full_page):
    assert "The causal chain" in full_page.text
