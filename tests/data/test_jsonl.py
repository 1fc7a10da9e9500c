"""Rows of .json and .jsonl files, as other tools write them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monadnock import MonadnockError
from monadnock.data.jsonl import read_rows

rows = st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=5), max_size=2), min_size=1, max_size=4)


@given(rows, st.booleans(), st.booleans(), st.sampled_from(["utf-8", "utf-8-sig"]))
def test_what_was_written_is_read(tmp_path_factory, found, lines, ascii_only, encoding):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    each = [json.dumps(row, ensure_ascii=ascii_only) for row in found]
    path.write_text("\n".join(each) if lines else f"[{','.join(each)}]", encoding=encoding)
    assert read_rows(path, "rows") == found


def test_signs_that_part_lines_elsewhere_are_text(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "one\u2028two\x85three"}\n{"a": "four"}', encoding="utf-8")
    assert [row["a"] for row in read_rows(path, "rows")] == ["one\u2028two\x85three", "four"]


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b'{"a": 1}\nno', b'"text"', b"[" * 100_000, b'{"a": 1}\n' + b"[" * 100_000]
)
def test_what_is_neither_is_refused(tmp_path, content):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(MonadnockError, match=r"rows\.jsonl"):
        read_rows(path, "rows")
