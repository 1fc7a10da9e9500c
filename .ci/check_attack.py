"""Check what `monadnock attack` added to the demo and said, and that `monadnock verify` agrees with the catalogue."""

import sys
from pathlib import Path

import monadnock as mk

folder, printed = Path(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="utf-8")
run = mk.Run.open(folder)
rows = {(row["mode"], row["metric"]): row["value"] for row in run.table("effects").to_dicts()}
assert rows["zero", "perplexity"] > 1.5 * rows["none", "perplexity"], rows
assert rows["retain", "perplexity"] < 1.2 * rows["none", "perplexity"], rows
assert rows["zero", "sink_share"] < 0.1 < 0.4 < rows["retain", "sink_share"], rows
assert run.table("generations").height == 9
assert "zero 2" in printed and "Report:" in printed and "Match with the catalogue" in printed, printed
assert "Generated texts" in (folder / "report.html").read_text(encoding="utf-8")
print("attack: effects, texts and page are there")
