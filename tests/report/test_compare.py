"""The page of a comparison: everything of every run is on it, nothing of a run becomes HTML, no other file is lost."""

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monadnock import MonadnockError, compare
from monadnock.findings import table
from monadnock.relations.compare_tables import BY_NAME, TOLD
from monadnock.report.compare import CHAPTERS, render, write_comparison
from monadnock.report.compare_charts import ACTIVATIONS, ROTARY, SINKS, WEIGHTS, Curve, sink_maps
from monadnock.report.compare_lines import look, run_lines
from monadnock.report.page import write_report
from tests.relations.runs import frames, write
from tests.report.conftest import MODEL
from tests.report.html_page import Page
from tests.report.test_page import PAGE_TAGS

SETS = st.sets(st.sampled_from(sorted(BY_NAME)))
CURVES = (*ACTIVATIONS, *SINKS, *ROTARY, *WEIGHTS)


def changed(tables, factor=2.0):
    """Return tables in which numbers of every kind are larger, every flag is turned, and every kind is another."""
    made = {}
    for name, frame in tables.items():
        for value in BY_NAME[name].values:
            column = pl.col(value.column) if value.column in frame.columns else None
            if column is None:
                continue
            turned = {"flag": ~column.cast(pl.Boolean), "name": pl.lit("broad")} if value.told else {}
            if value.change in ("ratio", "difference") and value.column not in ("value", "baseline"):
                frame = frame.with_columns((column * factor).cast(frame.schema[value.column]).alias(value.column))
            elif value.change in turned:
                frame = frame.with_columns(turned[value.change].alias(value.column))
        made[name] = frame
    return made


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Return a comparison of three runs with every table that is compared; the last one is changed all over."""
    folder = tmp_path_factory.mktemp("compared")
    tables = frames()
    runs = [write(folder / "base", tables), write(folder / "same", tables)]
    return compare(*runs, write(folder / "other", changed(tables), dtype="bfloat16", length=7))


@pytest.fixture(scope="module")
def page(full):
    return Page(render(full))


def test_every_chapter_and_every_curve_is_there(full, page):
    assert page.open == []
    shown = [chapter for chapter in CHAPTERS if chapter.key != "over"]
    heads = page.headings["h2"]
    assert heads == [
        "Not everything here is comparable",
        "Summary",
        *(chapter.title for chapter in shown),
        "Provenance",
    ]
    assert {curve.title for curve in CURVES} <= set(page.headings["h3"])
    plots = [attrs["id"] for _, attrs in page.tags if attrs.get("class") == "plot"]
    assert [chart["target_id"] for chart in page.charts] == plots
    assert len(plots) == len(CURVES) + 2  # and a map of sinks for each other run
    assert page.headings["h1"] == ["same and other against base"]


def test_every_kind_of_change_has_a_list(page):
    titles = {f"{told[:1].upper()}{told[1:]}" for told in TOLD}
    assert titles - {"Perplexity"} <= set(page.headings["h3"])


def test_numbers_sentences_and_warnings_of_the_comparison_are_on_the_page(full, page):
    for sentence in (*full.warnings, *full.remarks, *(told for lines in full.sentences.values() for _, told in lines)):
        assert " ".join(sentence.replace("\x07", "\\x07").split()) in page.text
    for what in full.numbers["what"]:
        assert what in page.text
    assert "same against base" in page.headings["h3"]


def test_every_chart_has_a_legend_of_all_runs_and_is_told(full, page):
    labels = [attrs["aria-label"] for _, attrs in page.tags if attrs.get("class") == "plot"]
    for label in labels[: len(ACTIVATIONS)]:
        assert all(name in label for name in full.names)
    tips = [attrs["id"] for _, attrs in page.tags if attrs.get("role") == "tooltip"]
    assert len(tips) == len(set(tips))
    assert "in this run gu2025.sink_mass = 0.3" in page.text


def test_thresholds_that_differ_are_cited_for_no_run(tmp_path):
    tables = frames(["heads"])
    found = compare(write(tmp_path / "x", tables), write(tmp_path / "y", tables, thresholds={"gu2025.sink_mass": 0.1}))
    assert "in this run gu2025" not in Page(render(found)).text


def test_nothing_from_a_run_becomes_a_tag(page):
    assert {tag for tag, _ in page.tags} <= set(PAGE_TAGS.split())
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert len(page.scripts) == 3
    assert MODEL.replace("\x07", "\\x07") in page.text
    raw = next(text for attrs, text in page.scripts if attrs.get("id") == "charts")
    assert not set("<>&") & set(raw)


def test_the_page_reaches_for_nothing_outside(page):
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert attrs.get(name, "#").startswith("#")
    policy = next(attrs["content"] for _, attrs in page.tags if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")


def test_anchors_are_different_and_reached(page):
    anchors = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(set(anchors)) == len(anchors)
    links = [attrs["href"][1:] for tag, attrs in page.tags if tag == "a"]
    assert set(links) <= set(anchors)


def values(plot):
    """Return the points of every line of a figure."""
    lines = [each for each in plot.renderers if type(each.glyph).__name__ == "Line"]
    return [
        list(zip(each.data_source.data[each.glyph.x], each.data_source.data["value"], strict=True)) for each in lines
    ]


def test_curves_lose_nothing(full):
    for curve in CURVES:
        read = {side.name: curve.read(side.tables[curve.table]) for side in full.sides}
        plot = run_lines(read, dict.fromkeys(read, 6), curve.unit, log=False)
        for points, frame in zip(values(plot), read.values(), strict=True):
            given = frame.drop_nulls("layer").with_columns(pl.col("value").cast(pl.Float64)).sort("layer")
            finite = [
                row
                for row in given.select("layer", "value").rows()
                if row[1] is not None and abs(row[1]) < float("inf")
            ]
            assert [point for point in points if point[1] == point[1]] == finite


def test_runs_of_different_depth_share_an_axis_from_0_to_1():
    frame = lambda count: pl.DataFrame({"layer": range(count), "value": [float(i + 1) for i in range(count)]})  # noqa: E731
    plot = run_lines({"x": frame(3), "y": frame(5), "z": None}, {"x": 3, "y": 5, "z": 1}, "value")
    assert [[x for x, _ in points] for points in values(plot)] == [[0, 0.5, 1], [0, 0.25, 0.5, 0.75, 1]]
    assert -0.1 < plot.x_range.start < 0
    assert 1 < plot.x_range.end < 1.1
    assert "depth" in plot.xaxis[0].axis_label
    same = run_lines({"x": frame(3), "y": frame(3)}, {"x": 3, "y": 3}, "value")
    assert [x for x, _ in values(same)[0]] == [0, 1, 2]
    assert "layer" in same.xaxis[0].axis_label


def test_no_two_runs_look_alike():
    assert len({look(place) for place in range(84)}) == 84
    for place in range(83):  # neighbours differ in colour and in shape or dash: colour alone tells nobody apart
        one, other = look(place), look(place + 1)
        assert one.colour != other.colour
        assert one.shape != other.shape
        assert one.dash != other.dash


def test_a_run_without_a_table_is_named_and_the_others_drawn(tmp_path):
    tables = frames(["layers", "heads"])
    runs = [write(tmp_path / "x", tables), write(tmp_path / "y", {"layers": tables["layers"]})]
    page = Page(render(compare(*runs)))
    assert "Heads with a sink" in page.headings["h3"]
    assert page.text.count("Not measured in y.") == 2
    assert "Not measured in y: heads." in page.text
    assert "Sinks of y against x" not in page.headings["h3"]


def test_families_are_drawn_but_not_joined(tmp_path):
    tables = frames()
    runs = [write(tmp_path / "x", tables), write(tmp_path / "y", tables, num_layers=9, family="opt", num_heads=2)]
    page = Page(render(compare(*runs)))
    assert {curve.title for curve in CURVES} <= set(page.headings["h3"])
    assert "Side by side" in page.headings["h3"]
    assert "Sinks of y against x" not in page.headings["h3"]
    assert "Families differ (x: llama; y: opt)" in page.text


def test_many_runs_are_drawn_over_the_runs_in_their_order(tmp_path):
    layers = lambda top1: table("layers").frame([{"stream": "residual", "layer": 0, "top1": top1, "median": 1.0}])  # noqa: E731
    runs = [write(tmp_path / f"step{i}", {"layers": layers(float(i))}) for i in (5, 1, 3, 2)]
    page = Page(render(compare(*runs)))
    assert "Over the runs" in page.headings["h2"]
    label = next(attrs["aria-label"] for _, attrs in page.tags if "over the runs" in attrs.get("aria-label", ""))
    assert "step5 5; step1 1; step3 3; step2 2" in label


@pytest.mark.parametrize("names", [[], ["parameters"], ["nonfinite"]])
def test_runs_with_hardly_a_table_make_a_whole_page(tmp_path, names):
    page = Page(render(compare(write(tmp_path / "x", frames(names)), write(tmp_path / "y", frames(names)))))
    assert page.open == []
    assert page.headings["h2"][-1] == "Provenance"


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=SETS, other=SETS, empty=SETS)
def test_a_page_comes_out_for_any_tables(tmp_path, first, other, empty):
    some = lambda names: {  # noqa: E731
        name: table(name).frame() if name in empty else frame for name, frame in frames(sorted(names)).items()
    }
    page = Page(render(compare(write(tmp_path / "x", some(first)), write(tmp_path / "y", changed(some(other))))))
    assert page.headings["h2"][-1] == "Provenance"
    assert [chart["target_id"] for chart in page.charts] == [
        attrs["id"] for _, attrs in page.tags if attrs.get("class") == "plot"
    ]


def test_provenance_tells_facts_once_where_runs_agree(page):
    assert page.text.count("Family") < 4
    for fact in ("Dtype, base", "Dtype, other", "Tokens, same"):
        assert fact in page.text
    assert "Vocabulary100" in page.text.replace(" ", "")
    assert "Vocabulary, base" not in page.text


def test_a_page_replaces_its_like_and_nothing_else(tmp_path, full):
    path = tmp_path / "compare.html"
    assert write_comparison(full, str(path)) == path
    first = path.read_text(encoding="utf-8")
    assert write_comparison(full, path) == path
    assert path.read_text(encoding="utf-8").partition("<script")[0] == first.partition("<script")[0]
    report = write_report(write(tmp_path / "x", {}))
    mine = tmp_path / "mine.html"
    mine.write_text("<html>monadnock compare</html>", encoding="utf-8")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for file in (report, mine, binary):
        before = file.read_bytes()
        with pytest.raises(MonadnockError, match=r"is there and is no page of `monadnock compare`"):
            write_comparison(full, file)
        assert file.read_bytes() == before
    with pytest.raises(MonadnockError, match=r"is a folder; give a file"):
        write_comparison(full, tmp_path)
    with pytest.raises(MonadnockError, match=r"could not be written to .*No such file or directory\.$"):
        write_comparison(full, tmp_path / "nowhere" / "compare.html")


def test_a_curve_is_a_column_of_its_table():
    for curve in CURVES:
        assert isinstance(curve, Curve)
        assert set(curve.notes) <= set(table(curve.table).polars)
        assert curve.table in BY_NAME


def test_maps_say_which_heads_lost_gained_or_kept_their_sink(tmp_path):
    flags = {"x": (True, True, False, False), "y": (True, False, True, False)}
    heads = lambda name: table("heads").frame(  # noqa: E731
        [{"layer": i // 2, "head": i % 2, "sink": sink, "sink_mass": 0.5} for i, sink in enumerate(flags[name])]
    )
    (block,) = sink_maps(compare(*(write(tmp_path / name, {"heads": heads(name)}) for name in flags)))
    assert block.title == "Sinks of y against x"
    assert block.says == "1 head lost their sink, 1 gained one, 1 kept theirs."
    cells, dots = (each.data_source.data for each in block.body.renderers)
    colours = {key.label: key.colour for key in block.keys}
    kinds = ["in both", "lost", "gained", "in neither"]
    assert list(zip(cells["layer"], cells["head"], cells["change"], strict=True)) == [
        (i // 2, i % 2, kind) for i, kind in enumerate(kinds)
    ]
    assert cells["_colour"] == [colours[kind] for kind in kinds]
    assert list(dots["change"]) == ["lost", "gained"]
