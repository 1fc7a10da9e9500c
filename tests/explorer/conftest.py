"""A run with planted maps, its pages, and Chromium to open them in."""

import os
import shutil

import pytest

from monadnock.explorer import write_map
from tests.explorer import planted
from tests.report.test_browser import FLAGS

ADVICE = "getImageData"  # Chromium's advice to whoever reads a canvas often, as only the tests do


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Return a run with maps and a page for each; tests only read it."""
    run = planted.write(tmp_path_factory.mktemp("maps") / "run")
    for name in ["map-002-q", *planted.odd_matrices()]:
        assert write_map(run, name) == run.path / "maps" / f"{name}.html"
    return run


@pytest.fixture
def page_of(run):
    return lambda name="map-002-q": run.path / "maps" / f"{name}.html"


@pytest.fixture(scope="module")
def browser():
    """Return Chromium, started once for all tests of a file."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    if path is None:
        reason = "no chromium on this machine"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS, headless=True)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Return a function that opens a map, waits until it is drawn, and notes everything that goes wrong."""
    wrong, contexts = [], []

    def note(message):
        if message.type in {"error", "warning"} and ADVICE not in message.text:
            wrong.append(message.text)

    def open_page(file, address="", *, width=1280, height=900, alarm="", **options):
        options = {"reduced_motion": "reduce"} | options  # quicker
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else wrong.append(r.url))
        page.goto(file.as_uri() + address)
        rest(page, alarm)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def rest(page, alarm=""):
    """Wait until nothing moves and nothing is still to be drawn, and hold the alarm to what it should say."""
    page.wait_for_selector("html[data-ready]", timeout=30_000)
    page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    page.wait_for_selector("html[data-idle=yes]", timeout=30_000)
    assert alarm in page.locator("#alarm").text_content()
    assert page.locator("#alarm").is_visible() == bool(alarm)
