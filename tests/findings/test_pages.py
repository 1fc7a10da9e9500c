"""Files for people appear whole, replace what is theirs to replace, and nothing else."""

import pytest

from monadnock import MonadnockError
from monadnock.findings.pages import generator, write_file


def write(path, body=b"one"):
    return write_file(path, [generator("map"), body], what="map", verb="map")


def test_only_a_file_of_the_same_verb_is_replaced(tmp_path):
    path = write(tmp_path / "page.html")
    assert write(path, b"two").read_bytes().endswith(b"two")
    for foreign in (b"precious", generator("report")):
        path.write_bytes(foreign)
        with pytest.raises(MonadnockError, match="is there and is no map of `monadnock map`"):
            write(path)
        assert path.read_bytes() == foreign
    with pytest.raises(MonadnockError, match="is a folder; give a file for the map"):
        write(tmp_path)


def test_a_failure_leaves_the_older_file_and_no_draft(tmp_path):
    path = write(tmp_path / "page.html")

    def parts():
        yield generator("map")
        raise OSError(28, "No space left on device")

    with pytest.raises(MonadnockError, match=r"could not be written to .*: No space left on device"):
        write_file(path, parts(), what="map", verb="map")
    assert path.read_bytes().endswith(b"one") and list(tmp_path.iterdir()) == [path]


def test_a_long_name_is_no_trouble(tmp_path):
    assert write(tmp_path / ("n" * 250)).exists()
    with pytest.raises(MonadnockError, match="cannot be written"):
        write(tmp_path / ("n" * 300))
