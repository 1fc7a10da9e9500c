"""Runs with planted findings: a tiny model's tables in which all matrices are alike, but for what a test changes."""

from pathlib import Path
from typing import Any

import polars as pl

from monadnock.findings import Run, schema
from tests.report.conftest import manifest

LAYERS, WIDTH, INNER = 6, 64, 128
ROLES = ("q", "k", "v", "o", "gate", "up", "down")
PATHS = {role: f"self_attn.{role}_proj" for role in "qkvo"} | {r: f"mlp.{r}_proj" for r in ("gate", "up", "down")}
SHAPES = {"q": (64, 64), "k": (32, 64), "v": (32, 64), "o": (64, 64), "gate": (128, 64), "up": (128, 64)}
COUNTS = {role: out * into for role, (out, into) in SHAPES.items()} | {"down": 64 * 128}
MEDIAN = 0.6745  # of |h|: a residual of unit variance


def name(layer: int, role: str) -> str:
    return f"model.layers.{layer}.{PATHS[role]}"


def matrices() -> list[dict[str, Any]]:
    return [{"layer": layer, "module": role} for layer in range(LAYERS) for role in ROLES]


def weights() -> list[dict]:
    errors = {"tensor": 0.012, "row": 0.009, "column": 0.009}
    return [each | {"axis": axis, "w8_error": errors[axis]} for each in matrices() for axis in errors]


def sensitivity(**setting: Any) -> list[dict]:
    """Every matrix gives a tenth of the residual's power, and a hundredth of that is noise."""
    about = {"kind": "plain", "bits": 4, "data": "words, ab12", "relative": 0.01, "total": 0.001 * WIDTH} | setting
    return [each | {"name": name(each["layer"], each["module"])} | about for each in matrices()]


def parameters() -> list[dict]:
    return [
        {"component": each["module"], "layer": each["layer"], "count": COUNTS[each["module"]]} for each in matrices()
    ]


def layers(**changes: Any) -> list[dict]:
    row = {"top1": 20.0, "median": MEDIAN, "mean_abs": 0.8, "rms": 1.0, "kurtosis": 3.0, "num_outliers": 0} | changes
    streams = ("residual", "down_proj_input")
    return [{"stream": stream, "layer": layer} | row for stream in streams for layer in range(LAYERS)]


def features(mean: float = 0.8) -> list[dict]:
    places = [(row["stream"], row["layer"]) for row in layers()]
    about = {"max_abs": 4.0, "mean_abs": mean}
    return [{"stream": stream, "layer": layer, "feature": f} | about for stream, layer in places for f in (3, 5)]


def heads(positions: list[int | None]) -> list[dict]:
    """One head for each position; all have a sink."""
    about = {"layer": 0, "sink": True, "sink_mass": 0.6}
    return [about | {"head": head, "sink_position": at} for head, at in enumerate(positions)]


def entries(positions: list[int], windows: int = 4, **changes: Any) -> list[dict]:
    about = {"stream": "residual", "layer": 2, "feature": 3, "value": 900.0, "criterion": "sun2024"} | changes
    return [about | {"sequence": w, "position": at} for w in range(windows) for at in positions]


def massive() -> list[dict]:
    sizes = ((17, 3000.0, True), (19, 1000.0, True), (4, 9.0, False))
    return [
        {"layer": 2, "rank": rank, "feature": row, "magnitude": size, "massive": flag}
        for rank, (row, size, flag) in enumerate(sizes, 1)
    ]


def supers() -> list[dict]:
    about = {"layer": 2, "row": 5, "weight": 6.0}
    return [
        about | {"rank": i, "column": c, "contribution": v} for i, (c, v) in enumerate([(17, -18000.0), (19, 900.0)])
    ]


def effect(method: str, value: float, **changes: Any) -> dict:
    about = {"mode": "compress", "metric": "perplexity", "data": "topics, 8 x 1024", "baseline": 13.59}
    return about | {"method": method, "value": value} | changes


def everything() -> dict[str, list[dict]]:
    """Return the tables of a model about which nothing stands out."""
    return {
        "weights": weights(),
        "parameters": parameters(),
        "layers": layers(),
        "features": features(),
        "heads": [row | {"sink": False, "sink_mass": 0.2} for row in heads([None, None])],
        "massive_weights": [row | {"magnitude": 9.0, "massive": False} for row in massive()],
        "sensitivity": sensitivity(),
    }


def write(path: Path, tables: dict[str, list[dict]], **changes: Any) -> Run:
    """Write a run with these tables; `changes` are facts of its model, or of its text."""
    about = manifest()
    facts = {"id": "tiny", "num_layers": LAYERS, "hidden_size": WIDTH, "intermediate_size": INNER, "num_experts": None}
    text = {key: changes.pop(key) for key in ("num_windows", "bos") if key in changes}
    model = about.model.model_copy(update=facts | changes)
    about = about.model_copy(update={"model": model, "text": about.text.model_copy(update=text)})
    frames = {
        name: schema.table(name).frame(pl.DataFrame(rows, infer_schema_length=None)) for name, rows in tables.items()
    }
    return Run.write(path, about, frames, force=True)


def changed(rows: list[dict], where: dict[str, Any], **changes: Any) -> list[dict]:
    """Return rows with changes in those that are as `where` says."""
    hit = [all(row[key] == value for key, value in where.items()) for row in rows]
    assert any(hit)
    return [row | changes if here else row for row, here in zip(rows, hit, strict=True)]
