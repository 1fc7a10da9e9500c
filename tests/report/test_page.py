import base64
import hashlib
import re
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monadnock.errors import MonadnockError
from monadnock.findings import schema
from monadnock.findings.manifest import AttackFacts
from monadnock.report import write_report
from monadnock.report.page import SECTIONS
from tests.report.conftest import HOSTILE, MODEL, write_run
from tests.report.html_page import Page

PAGE_TAGS = """
    html head meta title style body a header p button h1 h2 h3 div span nav ul li main section article dl dt dd b
    noscript table thead tbody tr th td script
"""


def titles(names):
    return [section.title for section in SECTIONS if set(section.tables) & set(names)]


def test_a_full_run_shows_every_section_with_its_charts(full_page):
    page = full_page
    assert page.open == []
    assert page.headings["h2"][1:-1] == ["Summary", *(section.title for section in SECTIONS)]
    plots = [attrs["id"] for tag, attrs in page.tags if attrs.get("class") == "plot"]
    assert len(plots) > 20
    assert [chart["target_id"] for chart in page.charts] == plots
    assert "Not measured" not in page.text
    for section in SECTIONS:
        assert section.says in page.text
        assert not section.empty or section.empty not in page.text


def test_every_chart_says_what_it_shows(full_page):
    page = full_page
    labels = [attrs["aria-label"] for _, attrs in page.tags if attrs.get("class") == "plot"]
    assert all(len(label) > 40 for label in labels), labels
    tips = [attrs["id"] for _, attrs in page.tags if attrs.get("role") == "tooltip"]
    marks = [attrs["aria-describedby"] for _, attrs in page.tags if attrs.get("class") == "info"]
    assert tips == marks
    assert len(tips) == len(set(tips)) == len(page.headings["h3"])
    assert "in this run gu2025.sink_mass = 0.3" in page.text


def test_the_header_tells_what_the_numbers_depend_on(full_run, full_page):
    text = full_page.text
    for fact in ("llama", "float32", "512 tokens in 4 windows of 128", "yes, <s> (id 1)", "1e-07", "<i>topics</i>"):
        assert fact in text
    for _, sentence in full_run.summary().items:
        assert " ".join(sentence.replace("\x07", "\\x07").split()) in text


def test_a_run_tells_what_its_attacks_depend_on(make_run):
    run = make_run(["effects"])
    words = run.manifest.text.model_copy(update={"num_windows": 7, "source": "<b>notes</b>"})
    series = AttackFacts(
        monadnock="0.1.0",
        text=words,
        stride=64,
        attention="sdpa",
        device="cuda",
        metrics=["perplexity", "chain"],
        thresholds={"gu2025.sink_mass": 0.3},
        versions={"torch": "2.13.0"},
    )
    run.note(series)
    text = Page.read(write_report(run)).text
    for fact in (
        "7 windows of 128 tokens of <b>notes</b>",
        "64 tokens of every window",
        "perplexity, chain",
        "on cuda",
    ):
        assert fact in text
    assert "Attacks 1" not in text
    run.note(series.model_copy(update={"device": "cpu"}))
    text = Page.read(write_report(run)).text
    assert "Attacks 1" in text
    assert "Attacks 2" in text


def test_a_run_of_attacks_alone_is_a_whole_page(make_run):
    page = Page.read(write_report(make_run(["effects", "generations"])))
    assert page.headings["h2"] == ["Summary", "What massive weights do", "Generated texts", "Provenance"]
    assert page.charts


def test_texts_and_data_of_attacks_are_escaped(full_page):
    page = full_page
    assert "“<b>Once</b>”" in page.headings["h3"]
    assert "<i>topics</i>, 2 x 64, BOS" in page.text
    assert "<b>new</b>, k = 1" in page.text
    rests = [text for text in page.texts if "owned" in text]
    assert any(text.startswith("</script><script>") for text in rests)
    assert "\\x00\\x1b[31m\\u202e" in page.text


def test_a_run_without_bos_says_so(make_run):
    text = Page.read(write_report(make_run([], bos=False))).text
    assert "BOS in front" + "no; the text starts where it starts, the start token is <s>" in text


@pytest.mark.parametrize("name", schema.TABLES)
def test_a_run_with_one_table_shows_only_its_sections(make_run, name):
    page = Page.read(write_report(make_run([name])))
    start = page.headings["h2"].index("Summary") + 1
    assert page.headings["h2"][start:-1] == titles([name])


@pytest.mark.parametrize("name", sorted({name for section in SECTIONS for name in section.tables}))
def test_an_empty_table_gets_a_sentence(make_run, name):
    page = Page.read(write_report(make_run([name], empty=[name])))
    for section in SECTIONS:
        if section.empty:
            assert (section.empty in page.text) == (name in section.tables)
        else:
            assert section.title not in page.headings["h2"]
            missing = page.text.partition("Not measured in this run:")[2]
            assert (section.title in missing) == (name not in section.tables)
    assert page.charts == []


tables = st.sets(st.sampled_from(sorted(schema.TABLES)))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=tables, empty=tables)
def test_a_report_comes_out_for_any_subset_of_tables(tmp_path, names, empty):
    page = Page.read(write_report(write_run(tmp_path / "run", sorted(names), empty)))
    assert page.headings["h2"][-1] == "Provenance"
    left_out = {section.title for section in SECTIONS if not section.empty and set(section.tables) <= empty}
    shown = [title for title in page.headings["h2"] if title in titles(schema.TABLES)]
    assert shown == [title for title in titles(names) if title not in left_out]
    assert ("Not measured" in page.text) == (titles(names) != titles(schema.TABLES))


def test_nothing_from_the_run_becomes_a_tag(full_page):
    page = full_page
    assert {tag for tag, _ in page.tags} <= set(PAGE_TAGS.split())
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert [attrs.get("id") for attrs, _ in page.scripts] == ["charts", "pickers", None, None, None]
    assert MODEL.replace("\x07", "\\x07") in page.headings["h1"][0]
    assert "2 entries not finite in weight (layer 1, <b>q.weight</b>)" in page.text


def test_tokens_are_shown_with_what_is_invisible(full_page):
    page = full_page
    raw = next(text for attrs, text in page.scripts if attrs.get("id") == "charts")
    assert not set("<>&") & set(raw)
    strings = set(re.findall(r'"((?:[^"\\]|\\.)*)"', raw))
    assert {r"\u2423the", r"\u2423\u21b5\u21e5", r"(empty)"} <= strings
    for token in HOSTILE:
        if "script" in token or "\x00" in token:
            assert token not in str(page.charts)


def test_the_page_reaches_for_nothing_outside(full_page):
    page = full_page
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert attrs.get(name, "#").startswith("#")
    style = full_page.style
    assert "--paper" in style
    assert "url(" not in style
    assert "@import" not in style


def test_only_the_pages_own_scripts_may_run(full_page):
    page = full_page
    policy = next(attrs["content"] for _, attrs in page.tags if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    own = [text for attrs, text in page.scripts if attrs.get("type") != "application/json"]
    assert {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in own} == allowed


def test_broken_values_are_told_first(make_run):
    assert Page.read(write_report(make_run(["nonfinite"]))).headings["h2"][0] == "NaN or infinity was met"
    healthy = Page.read(write_report(make_run(["nonfinite"], empty=["nonfinite"])))
    assert healthy.headings["h2"][0] == "Summary"


def test_a_page_appears_whole_or_not_at_all(make_run, tmp_path, monkeypatch):
    run = make_run([])
    path = write_report(run, tmp_path / "page.html")
    before = path.read_text()
    monkeypatch.setattr(
        "pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(MonadnockError, match=r"could not be written to .*page\.html: No space left on device\.$"):
        write_report(run, path)
    assert path.read_text() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["page.html", "run"]


def test_a_missing_folder_is_one_clear_sentence(make_run, tmp_path):
    run = make_run([])
    with pytest.raises(MonadnockError, match=r"^The report could not be written to [^\n]*No such file or directory\.$"):
        write_report(run, tmp_path / "nowhere" / "page.html")


def test_a_path_may_be_a_string_and_the_page_replaces_an_older_one(make_run, tmp_path):
    run = make_run([])
    for _ in range(2):
        assert write_report(run, str(tmp_path / "page.html")) == tmp_path / "page.html"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["page.html", "run"]


def test_the_report_needs_no_torch():
    code = "import sys, monadnock.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
