"""Opens the page in Chromium: no error, no request to anywhere, no sideways scrolling, every chart drawn."""

import os
import shutil

import pytest

from tests.report.conftest import MODEL

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
READY = "html[data-charts]"
INK = {"light": "rgb(84, 92, 104)", "dark": "rgb(169, 177, 189)"}
LABEL_COLOURS = """() => {
  const colours = new Set();
  for (const doc of Bokeh.documents)
    for (const model of doc.all_models)
      if ("major_label_text_color" in model.properties) colours.add(model.major_label_text_color);
  return [...colours];
}"""
BLANK = """() => {
  const canvases = [];
  const walk = root => root.querySelectorAll("*").forEach(el => {
    if (el.localName === "canvas" && el.width > 1) canvases.push(el);
    if (el.shadowRoot) walk(el.shadowRoot);
  });
  return [...document.querySelectorAll(".plot")].filter(plot => {
    canvases.length = 0;
    walk(plot);
    return !canvases.some(canvas => {
      const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      return pixels.some((value, i) => i % 4 === 3 && value > 0);
    });
  }).map(plot => plot.id);
}"""
HOVER_TEXTS = """() => [...document.querySelectorAll(".bk-Tooltip")]
  .filter(tip => getComputedStyle(tip).display !== "none")
  .map(({shadowRoot: root}) =>
    ({text: root.textContent, tags: [...root.querySelectorAll("*")].map(el => el.localName)}))"""
PLACE_OF_FIRST_MARK = """plot => {
  const {frame, model} = [...Bokeh.index].find(view => plot.contains(view.el));
  const marks = model.renderers.find(({glyph}) => glyph.type === "Scatter" && glyph.size.value === 8);
  const {k_text, value} = marks.data_source.data;
  return [frame.x_scale.compute(k_text[0]), frame.y_scale.compute(value[0])];
}"""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium():
    path = shutil.which("chromium")
    if path is None:
        reason = "no chromium on this machine"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return path


@pytest.fixture
def page_file(full_run):
    return full_run.path / "report.html"


@pytest.fixture(scope="module")
def playwright():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def windows(playwright, chromium, tmp_path_factory):
    """Return a function that opens a file once for each width and scheme, with the list of what went wrong in it."""
    opened = {}

    def window(file, width, scheme):
        if (file, width, scheme) not in opened:
            context = playwright.chromium.launch_persistent_context(
                tmp_path_factory.mktemp("profile"),
                executable_path=chromium,
                args=FLAGS,
                headless=True,
                viewport={"width": width, "height": 900},
                color_scheme=scheme,
            )
            wrong = []
            page = context.new_page()
            page.on("console", lambda m: wrong.append(m.text) if m.type in {"error", "warning"} else None)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            inside = ("file:", "data:", "blob:")
            page.on("request", lambda r: None if r.url.startswith(inside) else wrong.append(r.url))
            page.goto(file.as_uri())
            page.wait_for_selector(READY, timeout=60_000)
            opened[file, width, scheme] = (page, wrong)
        return opened[file, width, scheme]

    yield window
    for page, _ in opened.values():
        page.context.close()


@pytest.fixture
def visit(windows):
    """Return a function that gives a drawn page, at its top and untouched; nothing may have gone wrong in it."""
    visited = []

    def open_page(file, width, scheme):
        page, wrong = windows(file, width, scheme)
        visited.append(wrong)
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        return page

    yield open_page
    assert not any(visited)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_draws_every_chart_and_fits(visit, page_file, width, scheme):
    page = visit(page_file, width, scheme)
    count = page.locator(".plot").count()
    assert count > 20
    assert page.evaluate("document.documentElement.dataset.charts") == str(count)
    assert page.locator(".plot canvas").count() >= count
    page.wait_for_function(f"({BLANK})().length === 0", timeout=20_000)
    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    assert page.evaluate(LABEL_COLOURS) == [INK[scheme]]
    assert page.title().startswith(MODEL.replace("\x07", "\\x07"))


def test_the_toggle_dresses_the_page_and_its_charts(visit, page_file):
    page = visit(page_file, 1280, "light")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert page.locator("#theme").inner_text() == "Use dark colours"
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    assert page.evaluate(LABEL_COLOURS) == [INK["dark"]]
    assert page.locator("#theme").inner_text() == "Use light colours"
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == before
    assert page.evaluate(LABEL_COLOURS) == [INK["light"]]


def test_definitions_open_by_keyboard_and_stay_inside_the_page(visit, page_file):
    page = visit(page_file, 400, "light")
    mark = page.locator(".info").first
    tip = page.locator(".tip").first
    assert not tip.is_visible()
    mark.focus()
    assert tip.is_visible()
    assert "an2025" in tip.inner_text()
    box = tip.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 400
    page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_definitions_on_a_phone_cover_no_chart(visit, page_file):
    page = visit(page_file, 400, "light")
    block = page.locator("#attacks .block").first
    mark, tip, plot = (block.locator(name) for name in (".info", ".tip", ".plot"))
    page.evaluate("y => scrollBy(0, y)", mark.bounding_box()["y"] - 870)  # at the lower edge of the window
    mark.focus()
    box = tip.bounding_box()
    assert box["y"] + box["height"] <= min(plot.bounding_box()["y"], 901)


@pytest.mark.parametrize("place", [10, 870])
def test_definitions_stay_inside_the_window(visit, page_file, place):
    page = visit(page_file, 1280, "light")
    block = page.locator("#attacks .block").nth(3)
    page.evaluate("y => scrollBy(0, y)", block.locator(".info").bounding_box()["y"] - place)
    block.locator(".info").hover()
    box = block.locator(".tip").bounding_box()
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= 900


def test_texts_and_the_table_of_attacks_are_readable_on_a_phone(visit, page_file):
    page = visit(page_file, 400, "dark")
    for part in page.locator("#texts dt, #texts dd").all():
        box = part.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 400
    table = page.locator("#attacks .listing").first
    row = table.locator("tbody th").nth(1)
    before = row.bounding_box()["x"]
    table.evaluate("table => { table.parentElement.scrollLeft = 200; }")
    assert row.bounding_box()["x"] == before  # what an attack is called stays while its numbers are scrolled
    assert table.locator("tbody td").nth(0).bounding_box()["x"] < before


def test_hovering_an_attack_tells_what_was_changed(visit, page_file):
    page = visit(page_file, 1280, "light")
    plot = page.locator("#attacks .plot").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    x, y = plot.evaluate(PLACE_OF_FIRST_MARK)
    page.mouse.move(box["x"] + x, box["y"] + y)
    page.wait_for_timeout(200)
    seen = "".join(tip["text"] for tip in page.evaluate(HOVER_TEXTS))
    assert "attackzerok1perplexity" in seen
    assert "changedlayer 1: 0" in seen


def test_hovering_a_hostile_token_shows_its_text(visit, page_file):
    page = visit(page_file, 1280, "light")
    plot = page.locator("#carriers .block", has_text="Tokens: residual stream").locator(".plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    seen, tags = "", set()
    for step in range(0, int(box["height"]) - 60, 13):
        page.mouse.move(box["x"] + box["width"] * 0.46, box["y"] + step)
        page.wait_for_timeout(60)
        for tip in page.evaluate(HOVER_TEXTS):
            seen += tip["text"]
            tags |= set(tip["tags"])
    assert "<img␣src=x␣onerror=" in seen
    assert "</script><script>" in seen
    assert tags <= {"div", "span", "b", "style"}
    assert page.title() != "owned"
