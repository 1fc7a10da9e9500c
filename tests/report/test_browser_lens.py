"""Picks positions, dictionaries and heads in Chromium, by mouse and by keyboard; hostile tokens stay texts."""

import pytest

from monadnock.report import write_report
from tests.report.conftest import write_run
from tests.report.lens_rows import TOKENS
from tests.report.test_browser import FLAGS, READY, chromium, playwright, visit, windows  # noqa: F401

pytestmark = pytest.mark.browser

TABLE = """box => [...box.querySelectorAll("tr")].map(row => [...row.children].map(cell => cell.textContent))"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    names = ["lens", "readings", "circuits", "first_token", "dictionaries"]
    return write_report(write_run(tmp_path_factory.mktemp("lens") / "run", names))


@pytest.fixture
def opened(visit, file):  # noqa: F811
    """Return a function that opens the page and returns it with the picker of a section."""

    def open_page(section, width=1280, scheme="light"):
        page = visit(file, width, scheme)
        page.reload()  # what another test picked is forgotten
        page.wait_for_selector(READY, timeout=60_000)
        box = page.locator(f"#{section} .picker")
        box.locator("table").first.wait_for()
        return page, box

    return open_page


def picked(box):
    return [button.get_attribute("aria-label") for button in box.locator("[aria-checked=true]").all()]


def test_at_first_the_last_token_is_read_by_the_output_dictionary(opened):
    _, box = opened("lens")
    assert picked(box) == ["position 5, “(empty)”", "output dictionary"]
    table = box.evaluate(TABLE)
    assert [row[0] for row in table] == ["layer", "in", "0", "1", "2", "3", "4", "5"]
    assert {len(row) for row in table[1:]} == {6}
    assert table[4][2].endswith("NaN")
    assert box.locator(".faint").count() > 0
    assert box.locator(".status").inner_text().endswith("position 5, “(empty)”, output dictionary")


def test_the_mouse_picks_another_token_and_dictionary(opened):
    _, box = opened("lens")
    first = box.evaluate(TABLE)
    box.get_by_role("radio", name="position 1,").click()
    second = box.evaluate(TABLE)
    box.get_by_role("radio", name="middle dictionary").click()
    third = box.evaluate(TABLE)
    assert len({str(table) for table in (first, second, third)}) == 3
    assert picked(box) == ["position 1, “␣the”", "middle dictionary"]
    assert "approximation" in box.inner_text()
    box.get_by_role("radio", name="position 3,").click()
    assert picked(box)[1] == "middle dictionary"  # what was chosen stays chosen
    own = box.locator(".own")
    assert set(own.locator("bdi").all_inner_texts()) <= {"$$x^2$$"}


def test_the_keyboard_picks_and_keeps_its_place(opened):
    page, box = opened("lens")
    start = box.evaluate(TABLE)
    box.locator("select").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "(empty)"
    page.keyboard.press("ArrowLeft")
    assert picked(box)[0].startswith("position 4,")
    assert page.evaluate("document.activeElement.getAttribute('aria-checked')") == "true"
    assert box.evaluate(TABLE) != start
    page.keyboard.press("Home")
    assert picked(box)[0] == "position 0, “<s>”"
    page.keyboard.press("ArrowUp")
    assert picked(box)[0].startswith("position 5,")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert picked(box)[1] == "middle dictionary"
    assert box.evaluate(TABLE) != start


def test_another_prompt_brings_its_own_tokens(opened):
    _, box = opened("lens")
    before = box.evaluate(TABLE)
    box.locator("select").select_option(index=1)
    assert "raw rows" in box.locator(".status").inner_text()
    assert picked(box)[1] == "output dictionary"
    assert box.evaluate(TABLE) != before
    assert box.locator(".word.faint").count() == 0


def test_hostile_tokens_stay_texts(opened):
    page, box = opened("lens")
    buttons = box.get_by_role("radiogroup", name="Token").get_by_role("radio").all_inner_texts()
    assert buttons[:2] == ["<s>", "␣the"]
    assert buttons[2].startswith("<img␣src=x")
    seen = set()
    for place in range(len(buttons)):
        box.get_by_role("radio", name=f"position {place},").click()
        seen |= set(box.locator("bdi").all_inner_texts())
    assert {"␣the", "$$x^2$$", "\\x00\\u202e", "␣↵"} <= seen
    assert len(seen) <= len(TOKENS)
    assert page.evaluate("document.querySelectorAll('.picker img, .picker script').length") == 0
    assert page.title() != "owned"


def test_heads_are_picked_by_layer_and_told_by_position_where_they_are(opened):
    page, box = opened("head-words")
    assert box.locator("table").count() == 3  # qk, ov, and rows of layer 0
    assert picked(box) == ["head 0"]
    box.locator("select").focus()
    page.keyboard.press("ArrowDown")
    assert box.locator("table").count() == 2
    box.get_by_role("radio", name="head 1, driven by position").click()
    assert box.locator("table").count() == 1
    assert "58 % of its attention goes to the token before" in box.inner_text()
    assert box.locator(".status").inner_text() == "layer 1, head 1, driven by position"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_the_table_and_not_the_page(opened, scheme):
    page, box = opened("lens", 400, scheme)
    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [400, 400]
    scroll = box.locator(".scroll")
    assert scroll.evaluate("box => box.scrollWidth > box.clientWidth")
    name = box.locator("tbody th").nth(2)
    before = name.bounding_box()["x"]
    scroll.evaluate("box => { box.scrollLeft = 150; }")
    assert name.bounding_box()["x"] == before
    box.get_by_role("radio", name="position 2,").click()
    assert scroll.evaluate("box => box.scrollLeft") == 150  # the next table is seen at the same place
    page.locator("#head-words .picker button").last.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 400


def test_without_javascript_a_sentence_stands_there(playwright, chromium, file, tmp_path):  # noqa: F811
    context = playwright.chromium.launch_persistent_context(
        tmp_path / "profile", executable_path=chromium, args=FLAGS, headless=True, java_script_enabled=False
    )
    page = context.new_page()
    page.goto(file.as_uri())
    assert "Picking needs JavaScript" in page.locator("#lens .picker").inner_text()
    context.close()
