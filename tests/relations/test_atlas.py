"""The atlas: a row for each run, numbers as in a comparison, damaged runs left out, unchanged ones not read again."""

import os
import shutil
import time
from pathlib import Path

import polars as pl
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


def test_a_run_that_cannot_be_read_is_told_in_one_sentence(folder):
    """No sentence ends twice."""
    for name in ("one", "deep/two"):
        (folder / name / "manifest.json").write_text("{")
    with pytest.raises(MonadnockError) as caught:
        atlas(folder)
    assert "2 that are left out is deep/two: " in str(caught.value) and ".." not in str(caught.value)


@pytest.mark.parametrize("error", [OSError(28, "No space left"), pl.exceptions.ComputeError("No space left")])
def test_a_full_disk_is_no_reason_to_stop_and_leaves_nothing(folder, monkeypatch, error):
    def write(frame, file, **_):
        Path(file).write_bytes(b"PAR1 half")
        raise error

    monkeypatch.setattr(pl.DataFrame, "write_parquet", write)
    assert atlas(folder).table.height == 2
    assert sorted(path.name for path in folder.iterdir()) == ["deep", "one"]


def test_what_cannot_be_looked_into_is_told(folder, monkeypatch):
    real = os.scandir

    def scandir(place="."):
        if Path(place).name in ("deep", "tables") and "one" not in Path(place).parts:
            raise PermissionError(13, "Permission denied", str(place))
        return real(place)

    monkeypatch.setattr(os, "scandir", scandir)
    found = atlas(folder)
    assert found.table["run"].to_list() == ["one"]
    assert found.skipped == {"deep": "it cannot be looked into: Permission denied."}
    (folder / "deep").rename(folder / "other")
    assert atlas(folder).skipped == {"other/two": "it cannot be read: Permission denied."}


def test_a_run_that_lost_its_tables_is_told_and_manifests_of_others_are_not(folder):
    shutil.rmtree(folder / "one" / "tables")
    for name, content in (("app", '{"name": "app"}'), ("list", "[]"), ("cut", "{")):
        (folder / name).mkdir()
        (folder / name / "manifest.json").write_text(content)
    found = atlas(folder)
    assert found.table["run"].to_list() == ["deep/two"]
    assert found.skipped == {"one": "its folder tables is missing; scan the model again."}


def test_a_link_to_a_run_stands_for_it_and_no_run_is_there_twice(folder, tmp_path):
    shutil.move(folder / "one", tmp_path / "elsewhere" / "one")
    (folder / "link").symlink_to(tmp_path / "elsewhere" / "one")
    (folder / "again").symlink_to(folder / "deep" / "two")
    (folder / "around").symlink_to(folder)
    (folder / "all").symlink_to(tmp_path / "elsewhere")
    found = atlas(folder)
    assert found.table["run"].to_list() == ["deep/two", "link"] and not found.skipped


def test_a_table_that_goes_or_changes_and_another_version_let_a_run_be_read_again(folder, monkeypatch):
    atlas(folder)
    read = []
    real = module._row
    monkeypatch.setattr(module, "_row", lambda path, *more: (read.append(path.name), real(path, *more))[1])
    assert atlas(folder).table.height == 2 and atlas(folder.resolve()).table.height == 2 and read == []
    heads = folder / "one" / "tables" / "heads.parquet"
    os.utime(heads, ns=(1, 1))
    assert atlas(folder).table.height == 2 and read == ["one"]
    heads.unlink()
    assert "heads" in atlas(folder).skipped["one"] and read == ["one"] * 2
    monkeypatch.setattr(module, "version", lambda _: "99")
    atlas(folder)
    assert read[2:] == ["two", "one"]
