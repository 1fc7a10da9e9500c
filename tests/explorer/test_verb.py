"""`monadnock map`."""

import pytest

from monadnock.cli import map as verb
from monadnock.errors import MonadnockError
from monadnock.explorer import page as pages
from monadnock.findings import Run
from tests.explorer import planted
from tests.report.conftest import manifest


def test_all_maps_are_written_by_default(tmp_path, capsys, monkeypatch):
    run = planted.write(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    verb.command(run.path, None, None)
    names = ["map-000-down-003", "map-000-o", "map-001-up", "map-001-v", "map-002-q"]
    assert capsys.readouterr().out.split() == [f"run/maps/{name}.html" for name in names]
    assert sorted(file.stem for file in (run.path / "maps").iterdir()) == names


def test_named_maps_go_to_a_folder(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verb.command(run.path, ["map-001-v"], tmp_path / "pages")
    assert capsys.readouterr().out.split() == ["pages/map-001-v.html"]
    assert [file.name for file in (tmp_path / "pages").iterdir()] == ["map-001-v.html"]


def test_a_wrong_name_is_told_before_anything_is_written(run, tmp_path):
    with pytest.raises(MonadnockError, match="no map 'map-001-x'"):
        verb.command(run.path, ["map-001-v", "map-001-x"], tmp_path / "pages")
    assert not (tmp_path / "pages").exists()


def test_a_run_without_maps_says_how_to_make_them(tmp_path):
    run = Run.write(tmp_path / "run", manifest(), {})
    with pytest.raises(MonadnockError, match="monadnock sensitivity MODEL --layer L --module M --map --out"):
        verb.command(run.path, None, None)


def test_a_page_that_browsers_open_slowly_is_noted(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pages, "LARGE", 1000)
    verb.command(run.path, ["map-001-v"], tmp_path)
    said = capsys.readouterr()
    assert "map-001-v.html" in said.out
    assert "map-001-v.html has 0 MB; a browser takes a while" in said.err
