"""The page as a file: what it holds, what is escaped, how large it is, that it appears whole or not at all."""

import base64
import hashlib
import re

import numpy as np
import pytest

from monadnock.errors import MonadnockError
from monadnock.explorer import page as pages
from monadnock.explorer import write_map
from monadnock.findings import Run
from tests.explorer import planted
from tests.report.conftest import MODEL, manifest


@pytest.mark.parametrize("name", ["map-002-q", *planted.odd_matrices()])
def test_the_page_holds_the_codes_of_the_run(run, page_of, name):
    held = planted.Held(page_of(name))
    found, _ = run.tensors(name)
    np.testing.assert_array_equal(held.weights(), found["codes"] * found["step"].astype(np.float64)[:, None])
    for each in ("step", "scale", "zero", "plain", "compensated"):
        np.testing.assert_array_equal(held.floats(each), found[each].ravel())


def test_with_little_room_weights_are_kept_to_the_step_that_the_page_tells(run, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "ROOM", 1)
    held = planted.Held(write_map(run, "map-002-q", tmp_path / "small.html"))
    found, _ = run.tensors("map-002-q")
    weight = found["codes"] * found["step"].astype(np.float64)[:, None]
    step = np.abs(weight).max(1, keepdims=True) / 255
    assert (np.abs(held.weights() - weight) <= step * 0.5001).all()
    assert "9 bits a weight: 255 steps from 0 to the largest |w| of its row" in held.text


def test_only_the_page_s_own_script_may_run(page_of):
    text = page_of().read_text()
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert f"default-src 'none'; script-src 'sha256-{digest}';" in policy.replace("&#39;", "'")
    assert not re.search(r"https?:|\bsrc=|url\(|@import", re.sub(r"&lt;.*?&gt;", "", text))


def test_texts_of_a_run_are_only_texts(page_of):
    text = page_of().read_text()
    assert "<img" not in text
    assert "owned'</script>" not in text
    assert MODEL not in text
    assert (
        text.count("<script")
        == text.count("</script>")
        == len(re.findall('<script(?: type="[a-z/]+" id="[a-z0-9-]+")?>', text))
    )
    assert "\\u202e\\x07" in text


def test_the_page_says_what_it_shows(page_of):
    text = page_of().read_text()
    for told in (
        "<h1>Layer 2, q</h1>",
        "<dd>600 x 700</dd>",
        "10 of 60 rows",
        "3 bits, one grid for each row",
        "4,096 tokens",
        "16 bits a weight: 32,767 steps",
        "score 9.25, p 0.001, with compensation",
    ):
        assert told in text
    assert "<h1>Layer 0, down, expert 3</h1>" in page_of("map-000-down-003").read_text()
    assert "4 bits, one grid for 100 columns of a row" in page_of("map-000-o").read_text()
    assert "This run looked for none in this matrix." in page_of("map-000-o").read_text()


def test_a_page_of_a_large_matrix_has_the_size_that_it_may_have(tmp_path):
    run = Run.write(tmp_path / "run", manifest(), {})
    run.add_tensors("map-000-o", planted.arrays(planted.gaussian(2048, 2048)), planted.facts(0, "o"))
    least = write_map(run, "map-000-o").stat().st_size
    assert least < 2.72 * 2048**2  # 16 bits and their pools, in base64


def test_a_page_with_less_room_has_the_size_that_8192_rows_need(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "ROOM", pages.ROOM / 16)
    run = Run.write(tmp_path / "run", manifest(), {})
    run.add_tensors("map-000-o", planted.arrays(planted.gaussian(2048, 2048)), planted.facts(0, "o"))
    assert write_map(run, "map-000-o").stat().st_size < 100e6 / 16


def test_a_page_that_cannot_be_written_leaves_nothing(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MonadnockError, match="could not be written"):
        write_map(run, "map-002-q", tmp_path / "file" / "page.html")
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(MonadnockError, match="is a folder; give a file for the map"):
        write_map(run, "map-002-q", tmp_path / "taken.html")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "taken.html"]


def test_the_same_run_gives_the_same_page(run, page_of, tmp_path):
    again = write_map(run, "map-002-q", str(tmp_path / "again" / "page.html"))
    assert again.read_bytes() == page_of().read_bytes()
