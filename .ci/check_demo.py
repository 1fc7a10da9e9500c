"""Check what `make demo` wrote and said: the run is whole, the page is there, the known outliers were found."""

import sys
from pathlib import Path

import monadnock as mk
from monadnock.findings import TABLES

folder, printed = Path(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="utf-8")
run = mk.Run.open(folder)
scanned = {name for name, table in TABLES.items() if table.verb == "scan"}
assert set(run.manifest.tables) == scanned, "the demo does not fill every table"
massive = run.table("massive_weights").filter("massive")
assert massive["layer"].unique().to_list() == [11], massive
assert massive["feature"].to_list() == [1229, 1487], massive
assert run.table("parameters")["count"].sum() == run.manifest.model.num_parameters == 134_515_008
assert (folder / "report.html").stat().st_size > 500_000
assert "Report:" in printed and "1229" in printed and "Next:" in printed, printed
rows = sum(run.manifest.tables.values())
print(f"demo: {run.manifest.seconds:.0f} s in the scan, {rows} rows, page and findings are there")
