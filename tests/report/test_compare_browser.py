"""Opens the page of a comparison in Chromium, as `test_browser` does with a run's: drawn, offline, and no wider."""

import re

import pytest

from monadnock import compare
from monadnock.relations.atlas import atlas
from monadnock.report.atlas import write_atlas
from tests.relations.runs import frames, write
from tests.report.test_browser import (  # noqa: F401
    BLANK,
    HOVER_TEXTS,
    INK,
    LABEL_COLOURS,
    chromium,
    playwright,
    visit,
    windows,
)
from tests.report.test_compare import changed

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return the pages of two runs of one shape, and of five of which the last has another."""
    folder = tmp_path_factory.mktemp("compared")
    tables = frames()
    base, other = write(folder / "base", tables), write(folder / "other", changed(tables), dtype="bfloat16")
    deep = write(folder / "deep", tables, num_layers=9, family="opt")
    alike = compare(base, other).report(folder / "alike.html")
    return {"alike": alike, "families": compare(base, other, base, other, deep).report(folder / "families.html")}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["alike", "families"])
def test_the_page_draws_every_chart_and_fits(visit, files, name, width, scheme):  # noqa: F811
    page = visit(files[name], width, scheme)
    count = page.locator(".plot").count()
    assert count > 12
    assert page.evaluate("document.documentElement.dataset.charts") == str(count)
    page.wait_for_function(f"({BLANK})().length === 0", timeout=20_000)
    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    assert page.evaluate(LABEL_COLOURS) == [INK[scheme]]
    assert page.title() != "owned"


def test_pointing_at_a_layer_tells_the_values_of_all_runs(visit, files):  # noqa: F811
    page = visit(files["alike"], 1280, "light")
    plot = page.locator("#sinks .plot").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 3)
    page.wait_for_timeout(200)
    (tip,) = page.evaluate(HOVER_TEXTS)
    assert re.search(r"layer\d+base[\d.]+other[\d.]+$", tip["text"])
    assert set(tip["tags"]) <= {"div", "span", "b", "style"}


def test_numbers_can_be_read_on_a_phone(visit, files):  # noqa: F811
    page = visit(files["families"], 400, "dark")
    table = page.locator("#numbers .listing").first
    name = table.locator("tbody th").first.bounding_box()
    first = table.locator("tbody td").first.bounding_box()
    assert name["width"] < 160
    assert first["x"] + first["width"] < 400


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_of_an_atlas_draws_every_chart_and_fits(visit, tmp_path, width, scheme):  # noqa: F811
    given = {"a": {}, "<script><b>": {"family": "opt", "num_parameters": 10**9}, "c": {"num_layers": 9}}
    for name, facts in given.items():
        write(tmp_path / "runs" / name, frames(), **facts)
    page = visit(write_atlas(atlas(tmp_path / "runs"), tmp_path / "atlas.html"), width, scheme)
    count = page.locator(".plot").count()
    assert count >= 4 and page.evaluate("document.documentElement.dataset.charts") == str(count)
    page.wait_for_function(f"({BLANK})().length === 0", timeout=20_000)
    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    assert page.locator("#models tbody tr").count() == 3
