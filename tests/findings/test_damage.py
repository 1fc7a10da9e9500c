"""A run that is damaged, foreign or newer is refused in one sentence."""

import json
import random

import polars as pl
import pytest
from pydantic import ValidationError

from monadnock.errors import MonadnockError
from monadnock.findings import Manifest, Run
from monadnock.findings.manifest import SCHEMA_VERSION
from tests.report.conftest import manifest


def refusal(call, *args):
    with pytest.raises(MonadnockError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(run, **changes):
    """Change entries of a run's manifest; a change to None drops the entry."""
    file = run.path / "manifest.json"
    raw = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"3", b"\xff\xfe", b'{"schema_version": "new"}'])
def test_a_damaged_manifest(run, content):
    (run.path / "manifest.json").write_bytes(content)
    assert "manifest.json is damaged" in refusal(Run.open, run.path)


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.95])
def test_a_manifest_that_was_cut_short(run, cut):
    file = run.path / "manifest.json"
    content = file.read_bytes()
    file.write_bytes(content[: int(cut * len(content))])
    assert "manifest.json is damaged" in refusal(Run.open, run.path)


def test_a_newer_run_is_told_before_its_new_fields_are(run):
    edit(run, schema_version=SCHEMA_VERSION + 1, colour="blue")
    said = refusal(Run.open, run.path)
    assert f"has schema version {SCHEMA_VERSION + 1}" in said
    assert f"up to {SCHEMA_VERSION}" in said


@pytest.mark.parametrize("changes", [{"colour": "blue"}, {"model": None}, {"seconds": "long"}, {"tables": [1]}])
def test_a_manifest_with_other_fields(run, changes):
    edit(run, **changes)
    assert "manifest.json is damaged" in refusal(Run.open, run.path)


def test_what_is_not_a_run(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "file"):
        assert "is not a run: it holds no manifest.json" in refusal(Run.open, path)
    assert "cannot be looked into" in refusal(Run.open, tmp_path / ("x" * 300))


def test_tables_that_are_damaged(run):
    file = run.path / "tables" / "heads.parquet"
    content = file.read_bytes()
    for size in (0, 4, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:size])
        assert "'heads'" in (said := refusal(run.table, "heads"))
        assert "is damaged" in said
    assert run.table("layers").height, "the other tables stay readable"
    assert "'heads'" in refusal(run.summary)
    file.unlink()
    assert "is damaged" in refusal(run.table, "heads")


@pytest.mark.parametrize("frame", [{"layer": ["one"]}, {"colour": [1]}, {"layer": [[1]]}])
def test_a_parquet_file_that_is_not_this_table(run, frame):
    pl.DataFrame(frame).write_parquet(run.path / "tables" / "heads.parquet")
    assert "'heads'" in refusal(run.table, "heads")


def test_flipped_bytes_give_a_table_or_a_sentence_and_nothing_else(run, capfd):
    file = run.path / "tables" / "heads.parquet"
    content, draw, refused = file.read_bytes(), random.Random(0), 0
    for _ in range(150):
        bad = bytearray(content)
        for _ in range(draw.randrange(1, 8)):
            bad[draw.randrange(len(bad))] = draw.randrange(256)
        file.write_bytes(bytes(bad))
        try:
            run.table("heads")
        except MonadnockError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused
    capfd.readouterr()  # polars tells its panics to stderr


def test_a_panic_inside_polars_is_told_too(run, monkeypatch):
    def panic(file):
        raise pl.exceptions.PanicException("assertion failed\nstack backtrace")

    monkeypatch.setattr(pl, "read_parquet", panic)
    assert "cannot be read (assertion failed)" in refusal(run.table, "heads")


def test_tables_that_the_run_does_not_have(tmp_path):
    run = Run.write(tmp_path / "run", manifest(), {"heads": pl.DataFrame()})
    assert "There is no table 'hats'" in refusal(run.table, "hats")
    assert "This run has no table 'layers': known are heads" in refusal(run.table, "layers")
    edit(run, tables={"hats": 3})
    assert "There is no table 'hats'" in refusal(Run.open(run.path).summary)


def test_the_manifest_forbids_fields_that_it_does_not_know_and_changes():
    raw = manifest().model_dump()
    assert Manifest.model_validate(raw) == manifest().model_copy(update={"created": raw["created"]})
    for part in ("model", "text", "self_check"):
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            Manifest.model_validate(raw | {part: raw[part] | {"colour": "blue"}})
    with pytest.raises(ValidationError, match="frozen"):
        manifest().seconds = 1.0  # type: ignore[misc]
