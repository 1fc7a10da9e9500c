"""Walks through a map in Chromium: what is told, drawn and remembered, with no error and no request to anywhere."""

import base64
import math
import re

import numpy as np
import pytest

from monadnock.explorer import colours, write_map
from monadnock.explorer import page as pages
from monadnock.findings import Run
from tests.explorer import planted
from tests.explorer.conftest import rest
from tests.explorer.test_pools import direct
from tests.report.conftest import manifest

pytestmark = pytest.mark.browser

LEFT, TOP = 68, 44  # CSS pixels that the numbers of rows and columns take


def plot(page):
    """Return the map's place in the window without its numbers: left, top, width, height."""
    page.locator("#map").scroll_into_view_if_needed()
    box = page.locator("#map").bounding_box()
    inside = page.evaluate("[document.getElementById('map').clientWidth, document.getElementById('map').clientHeight]")
    return box["x"] + 1 + LEFT, box["y"] + 1 + TOP, inside[0] - LEFT - 1, inside[1] - TOP - 1


def at_middle(page):
    left, top, width, height = plot(page)
    page.mouse.move(left + width / 2, top + height / 2)
    rest(page)


def told(page):
    names = ("at", "row", "column", "head", "weight", "compensated", "plain")
    found = {name: page.locator(f"output#{name}") for name in names}
    return {name: place.inner_text() for name, place in found.items() if place.count()}


def number(text):
    return float(text.replace("−", "-"))  # noqa: RUF001


def view(page):
    """Return the view that the address tells, after it was written."""
    page.wait_for_timeout(350)
    return {name: number(value) for name, value in re.findall(r"(row|column|zoom)=([\d.e+-]+)", page.url)}


def go(page, address):
    page.evaluate("address => { location.hash = address; }", address)
    page.wait_for_timeout(30)
    rest(page)


def pixels(page):
    """Return the map's pixels, [y, x, rgb]."""
    data, width = page.evaluate(
        """() => {
          const map = document.getElementById("map");
          const {data} = map.getContext("2d").getImageData(0, 0, map.width, map.height);
          let text = "";
          for (let n = 0; n < data.length; n += 8192) text += String.fromCharCode(...data.subarray(n, n + 8192));
          return [btoa(text), map.width];
        }"""
    )
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(-1, width, 4)[..., :3].astype(int)


@pytest.mark.parametrize(
    ("name", "count"),
    [("map-002-q", 16), ("map-000-o", 8), ("map-000-down-003", 6), ("map-001-up", 4), ("map-001-v", 4)],
)
def test_hovering_tells_the_weight_and_both_sensitivities(visit, run, page_of, name, count):
    found, facts = run.tensors(name)
    wanted = planted.sensitivities(found, int(facts["bits"]), int(facts["group"] or 0) or None)
    weight = found["codes"] * found["step"].astype(np.float64)[:, None]
    rng = np.random.default_rng(0)
    places = [tuple(int(rng.integers(length)) for length in weight.shape) for _ in range(count)]
    if name == "map-002-q":
        places += [(123, 456), (300, 15), (0, 0), (599, 699), (255, 256)]
    if name == "map-000-down-003":
        places += [(3, 17), (4, 200)]  # a row of equal weights, and one of zeros
    page = visit(page_of(name))
    for row, column in places:
        go(page, f"#row={row + 0.5}&column={column + 0.5}&zoom=40")
        at_middle(page)
        seen = told(page)
        assert (seen["at"], seen["row"], seen["column"]) == ("one weight", str(row), str(column))
        assert number(seen["weight"]) == pytest.approx(weight[row, column], rel=6e-4)
        for kind in ("compensated", "plain"):
            noise = 1e-6 * np.abs(weight[row]).max() ** 2 * found[kind][column]
            assert number(seen[kind]) == pytest.approx(wanted[kind][row, column], rel=2e-3, abs=noise)
        if name == "map-002-q":
            turned = (row % 60 + 30) % 60
            assert seen["head"] == f"{row // 60}, dimension {row % 60}, turns with {turned}"
        if name == "map-000-o":
            assert seen["head"] == f"{column // 50}, dimension {column % 50}"


def test_hovering_far_out_tells_the_largest_of_what_a_pixel_stands_for(visit, run, tmp_path):
    page = visit(write_map(run, "map-002-q", tmp_path / "page.html"), width=500, height=700)
    wanted = planted.sensitivities(run.tensors("map-002-q")[0], 3)
    go(page, "#row=300&column=350&zoom=0.5&show=plain")
    at_middle(page)
    seen = told(page)
    rows, columns = (list(map(int, found)) for found in re.findall(r"s (\d+)–(\d+)", seen["at"]))  # noqa: RUF001
    assert rows[1] - rows[0] == columns[1] - columns[0] == 1
    block = wanted["plain"][rows[0] : rows[1] + 1, columns[0] : columns[1] + 1]
    assert number(seen["plain"]) == pytest.approx(block.max(), rel=2e-3)
    place = np.unravel_index(block.argmax(), block.shape)
    assert (int(seen["row"]), int(seen["column"])) == (rows[0] + place[0], columns[0] + place[1])


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Return the values of a matrix of 2000 x 2048 weights, and its page."""
    run = Run.write(tmp_path_factory.mktemp("large") / "run", manifest(), {})
    found = planted.arrays(planted.gaussian(2000, 2048))
    run.add_tensors("map-000-up", found, planted.facts(0, "up"))
    return planted.sensitivities(found, 3), write_map(run, "map-000-up")


@pytest.mark.parametrize("quantity", ["compensated", "plain", "magnitude"])
@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_a_pixel_has_the_colour_of_the_largest_weight(visit, large, side, quantity):
    values, file = large
    page = visit(file, f"#row=1011&column=1003&zoom={1 / side}&show={quantity}", width=500, height=500)
    _, _, width, height = plot(page)
    shown = pixels(page)
    # Where the first piece in view begins, in pixels of the map: a pixel is one pooled value from there on.
    piece = 256 if side < 8 else 256 * side
    low, high = colours.FIXED[quantity]
    pooled = direct(values[quantity], side)
    with np.errstate(divide="ignore"):
        wanted = np.rint(255 * np.clip((np.log10(pooled) - low) / (high - low), 0, 1)).astype(int)
    palette = np.frombuffer(bytes.fromhex(colours.palette()), np.uint8).reshape(-1, 3).astype(int)
    checked, in_view = 0, min(width, 2048 // side) * min(height, 2000 // side)
    for row in range(0, values[quantity].shape[0], piece):
        for column in range(0, values[quantity].shape[1], piece):
            y = math.floor(TOP + (row - 1011) / side + height / 2 + 0.5)
            x = math.floor(LEFT + (column - 1003) / side + width / 2 + 0.5)
            part = wanted[row // side : (row + piece) // side, column // side : (column + piece) // side]
            top, left = max(0, TOP - y), max(0, LEFT - x)
            bottom, right = min(part.shape[0], TOP + height - y), min(part.shape[1], LEFT + width - x)
            if bottom <= top or right <= left:
                continue
            seen = shown[y + top : y + bottom, x + left : x + right]
            part = part[top:bottom, left:right]
            near = [np.abs(palette[np.clip(part + by, 0, 255)] - seen).max(-1) for by in (-1, 0, 1)]
            assert np.min(near, 0).max() <= 1
            checked += part.size
    assert checked > 0.95 * in_view


def test_it_opens_with_the_whole_matrix_and_every_value_has_a_pixel(visit, large):
    _, file = large
    page = visit(file)
    assert page.locator("#at").inner_text() == "the largest of 8 × 8 weights"  # noqa: RUF001
    assert "#" not in page.url
    _, _, width, height = plot(page)
    edge = pixels(page)[[TOP + 2, TOP + int(height) - 3]][:, LEFT + int(width) // 2]
    assert (edge == edge[0]).all()  # paper above and below
    size = page.evaluate("[document.getElementById('overview').width, document.getElementById('overview').height]")
    assert size[0] / size[1] == pytest.approx(2048 / 2000, rel=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits(visit, page_of, width, scheme):
    page = visit(page_of(), "#heads=1&halves=1", width=width, color_scheme=scheme)
    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    assert page.title() == "Layer 2, q: sensitivity map"
    assert page.locator("img").count() == 0
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[scheme]
    page.locator("#theme").click()
    rest(page)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != ground
    if width == 1280:
        box = page.locator("#status").bounding_box()
        assert box["y"] + box["height"] <= 900


def test_the_wheel_zooms_at_the_pointer_down_to_single_weights(visit, page_of):
    page = visit(page_of(), reduced_motion="no-preference")
    left, top, width, height = plot(page)
    zoom = min((width - 16) / 700, (height - 16) / 600)
    x, y = round(left + width / 2 + (456.5 - 350) * zoom), round(top + height / 2 + (123.5 - 300) * zoom)
    row, column = 300 + (y - top - height / 2) / zoom, 350 + (x - left - width / 2) / zoom
    page.mouse.move(x, y)
    for _ in range(12):
        page.mouse.wheel(0, -240)
        page.wait_for_timeout(20)
    rest(page)
    seen = told(page)
    assert (seen["at"], seen["row"], seen["column"]) == ("one weight", str(int(row)), str(int(column)))
    assert number(seen["weight"]) == pytest.approx(float(planted.planted()[int(row), int(column)]), rel=2e-3)
    assert view(page)["zoom"] == pytest.approx(64, rel=0.01)
    for _ in range(20):
        page.mouse.wheel(0, 300)
        page.wait_for_timeout(20)
    rest(page)
    assert view(page)["zoom"] == pytest.approx(0.7 * zoom, rel=0.01)


def test_dragging_and_keys_move_the_map(visit, page_of):
    page = visit(page_of(), "#row=300&column=350&zoom=20")
    left, top, _, _ = plot(page)
    page.mouse.move(left + 300, top + 200)
    page.mouse.down()
    page.mouse.move(left + 250, top + 180, steps=4)
    page.mouse.move(left + 200, top + 140, steps=4)
    page.mouse.up()
    rest(page)
    assert view(page) == {"row": 303, "column": 355, "zoom": 20}
    page.locator("#map").focus()
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Shift+ArrowLeft")
    rest(page)
    assert view(page) == {"row": 304, "column": 354, "zoom": 20}
    assert page.locator("#of").inner_text() == "In the middle"
    assert (told(page)["row"], told(page)["column"]) == ("304", "354")
    page.keyboard.press("+")
    rest(page)
    assert view(page)["zoom"] == pytest.approx(40, rel=0.01)
    page.keyboard.press("ArrowRight")
    rest(page)
    assert view(page)["column"] > 355
    page.keyboard.press("0")
    rest(page)
    assert view(page) == {}


def test_buttons_zoom_and_go_back(visit, page_of):
    page = visit(page_of(), "#row=300&column=350&zoom=8")
    page.locator("#in").click()
    page.locator("#in").click()
    rest(page)
    assert view(page) == {"row": 300, "column": 350, "zoom": pytest.approx(32, rel=0.01)}
    page.locator("#out").click()
    rest(page)
    assert view(page)["zoom"] == pytest.approx(16, rel=0.01)
    page.locator("#all").click()
    rest(page)
    assert view(page) == {}


def test_two_fingers_zoom(visit, page_of):
    page = visit(page_of(), "#row=300&column=350&zoom=8")
    left, top, width, height = plot(page)
    x, y = left + width / 2, top + height / 2
    page.evaluate(
        """([x, y]) => {
          const map = document.getElementById("map");
          map.setPointerCapture = () => {};
          const send = (kind, pointerId, clientX) => map.dispatchEvent(
            new PointerEvent(kind, {pointerId, clientX, clientY: y, pointerType: "touch", bubbles: true}));
          send("pointerdown", 11, x - 50);
          send("pointerdown", 12, x + 50);
          for (let step = 10; step <= 50; step += 10) {
            send("pointermove", 11, x - 50 - step);
            send("pointermove", 12, x + 50 + step);
          }
          send("pointerup", 11, x - 100);
          send("pointerup", 12, x + 100);
        }""",
        [x, y],
    )
    rest(page)
    assert view(page)["zoom"] == pytest.approx(16, rel=0.01)
    assert view(page)["column"] == pytest.approx(350, abs=0.5)


def test_switches_change_what_is_drawn(visit, page_of):
    page = visit(page_of())
    first = pixels(page)
    seen = [first]
    for act in ("input[value=plain]", "input[value=magnitude]", "#fitted", "#heads", "#halves", "#boxes"):
        page.locator(act).dispatch_event("click")
        rest(page)
        seen.append(pixels(page))
        assert (seen[-1] != seen[-2]).any(), act
    page.wait_for_timeout(350)
    assert page.url.endswith("#show=magnitude&fitted=1&heads=1&halves=1&boxes=0")
    assert page.locator("#of-colour").inner_text() == "log10 of |weight|; darker is larger"
    for act in ("input[value=compensated]", "#fitted", "#heads", "#halves", "#boxes"):
        page.locator(act).dispatch_event("click")
    page.mouse.move(0, 0)
    rest(page)
    assert (pixels(page) == first).all()


def test_the_grid_stands_at_the_borders_of_heads(visit, page_of):
    address = "#row=120&column=350&zoom=4&boxes=0"
    page = visit(page_of(), address)
    bare = pixels(page)
    go(page, address + "&heads=1")
    _, _, width, height = plot(page)
    changed = np.nonzero((pixels(page) != bare)[:, LEFT + int(width) // 2].any(-1))[0]
    assert abs(changed - (TOP + height / 2)).min() <= 2
    assert len(changed) <= 4  # no other border is in view
    go(page, address + "&halves=1")
    changed = np.nonzero((pixels(page) != bare).any((1, 2)))[0]
    assert np.abs(changed - (TOP + height / 2 + 30 * 4)).min() <= 2


@pytest.mark.parametrize(
    ("label", "row", "column"), [("row 417", 417.5, 350), ("row 200, columns 100 to 199", 200.5, 150)]
)
def test_a_pattern_is_flown_to_and_framed(visit, page_of, label, row, column):
    page = visit(page_of(), "#row=50&column=600&zoom=30", reduced_motion="no-preference")
    button = page.locator("[data-place]", has_text=label)
    button.click()
    rest(page)
    seen = view(page)
    assert (seen["row"], seen["column"]) == (row, column)
    assert seen["zoom"] >= 4
    assert button.get_attribute("aria-current") == "true"
    _, _, width, height = plot(page)
    framed = pixels(page)[TOP : TOP + int(height), LEFT + int(width) // 2]
    marks = np.nonzero(np.abs(framed - [0xD5, 0x5E, 0x00]).max(-1) < 12)[0]
    assert marks.min() < height / 2 < marks.max()
    at_middle(page)
    assert told(page)["row"] == str(int(row))


def test_a_pattern_of_another_kind_is_shown_in_that_kind(visit, page_of):
    page = visit(page_of())
    page.locator("[data-place]", has_text="column 77").click()
    rest(page)
    assert page.locator("input[value=plain]").is_checked()
    assert view(page)["column"] == 77.5
    page.locator("[data-place]", has_text="head 3").click()
    rest(page)
    assert page.locator("#heads").is_checked()
    assert page.locator("input[value=compensated]").is_checked()
    page.locator("[data-place]", has_text="rows 10 to 19").click()  # the kind of which there is no map
    rest(page)
    assert view(page)["row"] == 15


def test_a_row_that_was_found_is_marked_in_the_whole_matrix(visit, page_of):
    page = visit(page_of(), "#boxes=0")
    bare = pixels(page)
    go(page, "#boxes=1")
    _, _, width, height = plot(page)
    zoom = min((width - 16) / 700, (height - 16) / 600)
    changed = (pixels(page) != bare).any(-1)
    y, left, right = (
        TOP + height / 2 + (417.5 - 300) * zoom,
        LEFT + width / 2 - 350 * zoom,
        LEFT + width / 2 + 350 * zoom,
    )
    for start, end in ((left - 12, left + 2), (right - 2, right + 12)):
        marked = np.nonzero(changed[:, round(start) : round(end)].any(1))[0]
        assert (np.abs(marked - y) < 5).sum() >= 8  # an arrow at each end
    assert not changed[
        round(y) - 6 : round(y) + 6, round(left) + 9 : round(right) - 9
    ].any()  # the row stays to be seen
    page.locator("[data-place]", has_text="row 417").click()
    page.locator("#all").click()
    rest(page)
    framed = (pixels(page) != bare).any(-1)[:, LEFT + int(width) // 2]
    assert framed[round(y) - 8 : round(y) + 8].sum() >= 2
    assert not framed[round(y)]


def test_the_address_brings_a_view_back(visit, page_of):
    page = visit(page_of(), "#row=123.5&column=456.5&zoom=32&show=plain&heads=1")
    before = pixels(page)
    assert view(page) == {"row": 123.5, "column": 456.5, "zoom": 32}
    assert page.locator("input[value=plain]").is_checked()
    url = page.url
    page.reload()
    rest(page)
    assert (pixels(page) == before).all()
    assert page.url == url


@pytest.mark.parametrize(
    "address", ["#row=x&zoom=&show=toString", "#zoom=1e99&row=-5&column=1e9", "#%FF&&=", "#show=<b>"]
)
def test_an_address_that_says_nonsense_does_no_harm(visit, page_of, address):
    page = visit(page_of(), address)
    at_middle(page)
    assert page.locator("input[value=compensated]").is_checked()


def test_the_small_map_moves_the_large_one(visit, page_of):
    page = visit(page_of(), "#row=300&column=350&zoom=20")
    box = page.locator("#overview").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    rest(page)
    assert view(page)["row"] == pytest.approx(150, abs=4)
    assert view(page)["column"] == pytest.approx(175, abs=4)


def test_resizing_keeps_the_whole_matrix_whole(visit, page_of):
    page = visit(page_of())
    page.set_viewport_size({"width": 700, "height": 800})
    page.wait_for_timeout(100)
    rest(page)
    assert view(page) == {}
    assert page.evaluate("document.getElementById('map').width") < 700


def test_a_page_that_was_cut_off_says_so(visit, page_of, tmp_path):
    text = page_of().read_text()
    file = tmp_path / "cut.html"
    file.write_text(text[: text.index('id="tile-1-1"') - 40])
    visit(file, alarm="The map is not whole")


def test_the_page_leaves_nothing_in_the_window(visit, page_of, tmp_path):
    blank = tmp_path / "blank.html"
    blank.write_text("<!doctype html><html data-ready data-idle=yes><p id=alarm hidden></p>")
    names = "Object.getOwnPropertyNames(window).filter(name => !/^(on|[0-9])/.test(name)).sort()"
    assert set(visit(page_of()).evaluate(names)) - set(visit(blank).evaluate(names)) == set()


@pytest.mark.parametrize("bits", [7, 8, 11])
def test_weights_with_fewer_bits_are_told_as_they_are_kept(visit, run, tmp_path, monkeypatch, bits):
    monkeypatch.setattr(pages, "bits_for", lambda codes, room: bits)
    file = write_map(run, "map-002-q", tmp_path / "page.html")
    weight = planted.Held(file).weights()
    page = visit(file)
    for row, column in ((123, 456), (417, 3), (599, 699), (300, 300)):
        go(page, f"#row={row + 0.5}&column={column + 0.5}&zoom=40")
        at_middle(page)
        assert number(told(page)["weight"]) == pytest.approx(weight[row, column], rel=6e-4)
