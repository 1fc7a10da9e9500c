"""Check what `lens` and `read` added to the demo, said, and drew."""

import sys
from pathlib import Path

import polars as pl

import monadnock as mk

folder, printed = Path(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="utf-8")
run = mk.Run.open(folder)
words = run.table("lens").filter(pl.col("position") > 0, pl.col("rank") == 1)
own = words.filter(pl.col("word_id") == pl.col("token_id"))
shares = {
    (name, layer): own.filter(dictionary=name, layer=layer).height / words.filter(dictionary=name, layer=layer).height
    for name, layer in (("input", -1), ("input", 5), ("middle", 5))
}
assert shares["input", -1] == 1 and shares["input", 5] < 0.2 < 0.6 < shares["middle", 5], shares
assert run.table("dictionaries")["dictionary"].to_list() == ["input", "output"]
assert run.table("circuits").filter("position_driven")["layer"].n_unique() > 3
assert run.table("readings").filter(kind="feature", index=507).height
page = (folder / "report.html").read_text(encoding="utf-8")
for title in ("States in words", "Heads in words", "How alike states are", "The first-sentence effect"):
    assert title in page, title
assert len(page) < 20_000_000
assert "words behind each layer" in printed and "First sentence" in printed, printed
print("lens and read: tables, sentences and pages are there")
