"""The atlas: a row for each run, numbers as in a comparison, damaged runs left out, unchanged ones not read again."""

import shutil
import time

import pytest

from monadnock import MonadnockError, compare
from monadnock.findings import Run
from monadnock.relations import atlas as module
from monadnock.relations.atlas import KEPT, atlas, column, find_runs
from monadnock.relations.compare_numbers import NUMBERS, depth
from monadnock.report.atlas import render, write_atlas


@pytest.fixture
def folder(planted, tmp_path):
    for name, run in (("one", planted.base), ("deep/two", planted.tuned)):
        shutil.copytree(run.path, tmp_path / "runs" / name)
    return tmp_path / "runs"


def test_numbers_are_those_of_a_comparison(folder):
    found = atlas(folder)
    assert found.table["run"].to_list() == ["deep/two", "one"] and not found.skipped
    compared = compare(folder / "one", folder / "deep" / "two")
    values = {row["what"]: row for row in compared.numbers.to_dicts()}
    assert len({column(about) for about in NUMBERS}) == len(NUMBERS)
    for about in NUMBERS:
        for name, side in zip(("one", "deep/two"), compared.names, strict=True):
            wanted = values.get(about.what, {}).get(side)
            if about.what == "massive layer" and not values["massive rows"][side]:
                wanted = None  # the layer that comes nearest is none
            assert found.table.filter(run=name)[column(about)].item() == wanted, about.what
    layers = {row["run"]: row["massive_layer"] for row in found.table.to_dicts()}
    assert layers == {"deep/two": 1, "one": None}
    depths = {row["run"]: row["depth"] for row in found.table.to_dicts()}
    assert depths == {"deep/two": depth(1, found.table["num_layers"][0]), "one": None}


def test_a_second_time_only_what_changed_is_read(folder, monkeypatch):
    first = atlas(folder)
    read = []
    real = module._row
    monkeypatch.setattr(module, "_row", lambda path, *more: (read.append(path.name), real(path, *more))[1])
    assert atlas(folder).table.equals(first.table, null_equal=True) and read == []
    manifest = folder / "one" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"id": "', '"id": "other-'))
    assert atlas(folder).table.filter(run="one")["model"][0].startswith("other-") and read == ["one"]
    (folder / KEPT).write_bytes(b"nonsense")
    assert atlas(folder).table.height == 2 and len(read) == 3
    time.sleep(0.01)
    Run.open(folder / "one").add("effects", "x", [{"mode": "none", "k": 0, "metric": "perplexity", "baseline": 3.0}])
    assert atlas(folder).table.filter(run="one")["perplexity"].item() == 3.0 and read[3:] == ["one"]
    shutil.rmtree(folder / "one")
    assert atlas(folder).table["run"].to_list() == ["deep/two"]


def test_damaged_runs_are_left_out_and_told(folder):
    (folder / "one" / "tables" / "heads.parquet").write_bytes(b"cut")
    found = atlas(folder)
    assert found.table["run"].to_list() == ["deep/two"] and "heads" in found.skipped["one"]
    assert "Not every run is here" in render(found)


def test_hidden_folders_and_folders_of_runs_are_not_looked_into(folder):
    shutil.copytree(folder / "one", folder / ".draft")
    shutil.copytree(folder / "one", folder / "one" / "adapters" / "inner")
    assert [path.name for path in find_runs(folder)] == ["two", "one"]
    assert find_runs(folder / "one") == [folder / "one"]


def test_a_folder_that_cannot_be_written_to_is_read_all_the_same(folder, monkeypatch):
    monkeypatch.setattr("polars.DataFrame.write_parquet", lambda *_: (_ for _ in ()).throw(PermissionError()))
    assert atlas(folder).table.height == 2 and not (folder / KEPT).exists()


def test_nothing_to_read_is_told(tmp_path):
    with pytest.raises(MonadnockError, match="no folder; give one that holds runs"):
        atlas(tmp_path / "none")
    with pytest.raises(MonadnockError, match="holds no run that can be read"):
        atlas(tmp_path)


def test_the_page_escapes_names_and_is_written_whole(folder, tmp_path):
    (folder / "one").rename(folder / "<b>x")
    page = write_atlas(atlas(folder), tmp_path / "atlas.html")
    assert "&lt;b&gt;x" in page.read_text() and "<td><b>x" not in page.read_text()
    (tmp_path / "mine.html").write_text("mine")
    with pytest.raises(MonadnockError, match="is no page of `monadnock atlas`"):
        write_atlas(atlas(folder), tmp_path / "mine.html")
