"""What keeps numbers from being comparable is said, and nothing is said where nothing does."""

from datetime import UTC, datetime

import polars as pl
import pytest

from monadnock import compare
from monadnock.findings.manifest import AttackFacts
from tests.relations.runs import frames, write
from tests.report.conftest import manifest

OTHER = {"token_hash": "f" * 64}
UNLIKE = {
    "BOS": (OTHER | {"bos": False}, "The scanned tokens differ (x: BOS in front; y: no BOS in front)"),
    "length": ({"length": 7}, "The scanned tokens differ (x: 4 x 128 tokens; y: 4 x 7 tokens)"),
    "windows": (OTHER | {"num_windows": 9}, "(x: 4 x 128 tokens; y: 9 x 128 tokens)"),
    "text": (OTHER | {"source": "notes"}, "(x: <i>topics</i>; y: notes)"),
    "seed": (OTHER | {"seed": 3}, "(x: seed 0; y: seed 3)"),
    "tokens": (OTHER, "(x: ids 00000000; y: ids ffffffff)"),
    "text and length": (
        OTHER | {"source": "notes", "length": 7},
        "(x: 4 x 128 tokens, <i>topics</i>; y: 4 x 7 tokens, notes)",
    ),
    "dtype": ({"dtype": "bfloat16"}, "Dtypes differ (x: float32; y: bfloat16)"),
    "family": ({"family": "opt"}, "Families differ (x: llama; y: opt)"),
    "thresholds": (
        {"thresholds": manifest().thresholds | {"gu2025.sink_mass": 0.2}},
        "Thresholds differ (x: gu2025.sink_mass = 0.3; y: gu2025.sink_mass = 0.2)",
    ),
}


@pytest.mark.parametrize("case", UNLIKE)
def test_what_differs_is_said_as_a_warning(tmp_path, case):
    changes, said = UNLIKE[case]
    runs = [write(tmp_path / "x", {}), write(tmp_path / "y", {}, **changes)]
    (warning,) = compare(*runs).warnings
    assert said in warning
    assert warning.endswith(".")
    assert compare(runs[0], write(tmp_path / "z", {})).warnings == []


@pytest.mark.parametrize("changes", [{"id": "other"}, {"monadnock": "9.9"}, {"thresholds": {}}])
def test_what_does_not_matter_is_no_warning(tmp_path, changes):
    assert compare(write(tmp_path / "x", {}), write(tmp_path / "y", {}, **changes)).warnings == []


def test_runs_that_agree_are_named_together(tmp_path):
    dtypes = {"x": "float32", "y": "float16", "z": "float32"}
    (warning,) = compare(*(write(tmp_path / name, {}, dtype=dtype) for name, dtype in dtypes.items())).warnings
    assert "(x and z: float32; y: float16)" in warning


def test_remarks_name_shapes_and_versions(tmp_path):
    found = compare(write(tmp_path / "x", {}), write(tmp_path / "y", {}, num_layers=9, monadnock="9.9"))
    shapes, versions = found.remarks
    assert "x: 6 layers, 4 heads, width 32; y: 9 layers, 4 heads, width 32" in shapes
    assert "x: 0.1.0; y: 9.9" in versions


def series(tmp_path, token_hash):
    return AttackFacts(
        created=datetime(2026, 1, 1, tzinfo=UTC),
        monadnock="0.1.0",
        text=manifest().text.model_copy(update={"token_hash": token_hash}),
        stride=1,
        attention="sdpa",
        device="cpu",
        metrics=["perplexity"],
        thresholds={},
        versions={},
    )


def test_attacks_over_other_tokens_are_a_warning(tmp_path):
    runs = {
        name: write(tmp_path / name, {}, attacks=[series(tmp_path, digit * 64) for digit in digits])
        for name, digits in {"x": "ab", "y": "bc", "z": "c", "none": ""}.items()
    }
    assert compare(runs["x"], runs["y"], runs["none"]).warnings == []
    (warning,) = compare(runs["x"], runs["y"], runs["z"]).warnings
    assert warning == "Attacks on z saw other tokens than those on x: do not compare perplexities."


def test_broken_values_are_a_warning(tmp_path):
    broken = frames(["nonfinite"])
    healthy = {"nonfinite": broken["nonfinite"].filter(pl.lit(False))}
    (warning,) = compare(write(tmp_path / "x", healthy), write(tmp_path / "y", broken)).warnings
    assert warning == "NaN or infinity was met in 2 places of y: see its own report."
