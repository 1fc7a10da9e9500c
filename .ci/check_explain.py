"""Check what `explain`, `study` and `compare` added to the demo, said, and drew."""

import sys
from pathlib import Path

import polars as pl

import monadnock as mk

folder, printed = Path(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="utf-8")
run = mk.Run.open(folder)
chain = run.table("chain")
rows = chain.filter(pl.col("metric") == "sink_share", pl.col("link").str.starts_with("massive rows")).to_dicts()
assert rows and all(row["after"] < 0.5 * row["before"] < 0.9 * row["control"] for row in rows), rows
states = run.table("inputs").filter(pl.col("input") == "BOS at the start", pl.col("layer") == 14)
assert states.filter("massive")["position"].to_list() == [0], states
page = (folder / "report.html").read_text(encoding="utf-8")
for words in ("The causal chain", "Chosen inputs", "Rotary", "holds"):
    assert words in page, words
assert "massive rows" in printed and "BOS at the start" in printed, printed
compared = Path(sys.argv[3]).read_text(encoding="utf-8")
assert "Attention sinks" in compared and len(compared) < 10_000_000
print("explain, study and compare: tables, sentences and pages are there")
