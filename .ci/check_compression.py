"""Checks what sensitivity, maps, compression and prescriptions leave behind on the packaged model."""

import sys
from pathlib import Path

import polars as pl

from monadnock.findings import Run

run, printed = Run.open(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="utf-8")

lines = run.table("sensitivity_lines").filter(layer=11, module="down", axis="column")
pair = pl.col("index").is_in([1229, 1487])
plain = lines.filter(pair, kind="plain")["share"].sum()
assert plain > 0.95, plain  # two massive inputs hold the plain loss
assert lines.filter(pair, kind="compensated")["share"].sum() < 0.1  # and hide behind each other
patterns = run.table("patterns").filter(layer=11, module="o")
assert patterns.filter(pattern="attention_head")["found"].any()
assert (patterns.drop_nulls("p_value")["p_value"] > 0).all()
pages = sorted((run.path / "maps").glob("*.html"))
assert [page.stem for page in pages] == ["map-011-down", "map-011-o"] and all(p.stat().st_size < 1e7 for p in pages)

effects = run.table("effects").filter(pl.col("method").is_not_null(), metric="perplexity")
found = {method: (value, base) for method, value, base in effects.select("method", "value", "baseline").rows()}
tensor, base = found["absmax 8 bits tensor"]
row, _ = found["absmax 8 bits row"]
assert base < row < 1.01 * base < tensor < 1.2 * base, found
bits = run.table("effects").filter(pl.col("method").str.starts_with("spqr"), metric="average_bits")["value"].item()
stored = run.table("effects").filter(pl.col("method").str.starts_with("spqr"), metric="stored_bits")["value"].item()
assert 3.6 < bits < 5 and bits < stored < bits + 0.2, (bits, stored)
assert next((run.path / "packed").glob("spqr*/matrices.safetensors")).stat().st_size < 8e7

actions = set(run.table("prescriptions")["action"])
assert {"keep_module", "keep_sinks"} <= actions, actions
kept = run.table("prescriptions").filter(action="keep_module").height
recipe = (run.path / "recipe.yaml").read_text(encoding="utf-8")
assert recipe.count("      - ") >= 1 + kept and "- lm_head" in recipe, recipe
for word in ("Report: demo/report.html", "spqr 3 bits", "Recipe: demo/recipe.yaml", "stored bits"):
    assert word in printed, word
print("Sensitivity, maps, compression and prescriptions are as they should be.")
