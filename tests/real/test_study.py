"""Where BOS matters and what length does, in SmolLM2 and Gemma 3 270M: appendix C of oh2024 and D.3 of an2025."""

import polars as pl
import pytest

from monadnock.findings.summary_studies import by_token
from monadnock.studying import study

pytestmark = pytest.mark.real
SIZES = {"tokens": 512, "length": 512, "progress": False}


@pytest.fixture(scope="module")
def run(smollm2, tmp_path_factory):
    out = tmp_path_factory.mktemp("studied") / "run"
    study(smollm2, "bos", out=out, **SIZES)
    return study(smollm2, "length", out=out, **SIZES)


@pytest.fixture(scope="module")
def gemma3_studied(gemma3, tmp_path_factory):
    return study(gemma3, "bos", out=tmp_path_factory.mktemp("studied") / "run", **SIZES)


def massive(run, study="bos"):
    """Return the massive tokens of every input behind the shown layer."""
    tokens = by_token(run.manifest, run.tables()).filter(study=study)
    found = {name: [] for name in tokens["input"].unique(maintain_order=True)}
    for row in tokens.filter(pl.col("massive")).to_dicts():
        found[row["input"]].append((row["position"], row["token"]))
    return found


def sinks(run, name, position):
    return run.table("inputs").filter(input=name, position=position)["num_sink_heads"].sum()


def test_in_smollm2_it_is_the_place_that_matters(run):
    """As in Llama-2-13B and Phi-3: the first token is massive whichever it is, BOS elsewhere is a token like others."""
    assert massive(run) == {
        "no BOS": [(0, "Summer")],
        "BOS at the start": [(0, "<|im_start|>")],
        "BOS in the middle": [(0, "Summer")],
        "BOS at the end": [(0, "Summer")],
    }
    assert dict(run.summary().items)["BOS"].endswith(
        "BOS is massive only at the start. The first token is massive whichever it is."
    )
    found = run.table("inputs").filter(pl.col("massive"), study="bos")
    assert set(found["feature"]) == {507}
    assert found["layer"].min() == 11
    assert sinks(run, "BOS at the start", 0) > 200 > 10 > sinks(run, "BOS in the middle", 4)


def test_in_gemma_it_is_the_token_that_matters(gemma3_studied):
    """As in Mistral, and unlike Gemma 2: without BOS the first full stop is massive, with BOS in front it is not."""
    assert massive(gemma3_studied) == {
        "no BOS": [(3, ".")],
        "BOS at the start": [(0, "<bos>")],
        "BOS in the middle": [(3, "."), (4, "<bos>")],
        "BOS at the end": [(3, "."), (8, "<bos>")],
    }
    assert dict(gemma3_studied.summary().items)["BOS"].endswith(" BOS is massive wherever it stands.")
    assert sinks(gemma3_studied, "BOS in the middle", 4) > 65 > 60 > sinks(gemma3_studied, "no BOS", 3) > 50


def test_length_moves_nothing_in_smollm2(run):
    found = massive(run, "length")
    assert len(found) == 14
    for name, tokens in found.items():
        assert tokens == [(0, "Summer" if name.endswith("no BOS") else "<|im_start|>")]


def test_what_comes_later_changes_no_earlier_state(run):
    """The model is causal: a longer text adds states and leaves those that were there."""
    inputs = run.table("inputs").filter(study="length")
    short, long = (inputs.filter(input=f"{count} sentences, no BOS") for count in (3, 32))
    both = short.join(long, on=["layer", "position"], validate="1:1")
    assert both.height == short.height == 12 * 30
    assert both["top1"].to_list() == pytest.approx(both["top1_right"].to_list(), rel=1e-3)


def test_before_the_sink_attention_goes_to_the_full_stop(run):
    """As oh2024 sees in figure 24: in layer 1 the full stop gets most; behind the first stage of outliers the start."""
    inputs = run.table("inputs").filter(input="BOS at the start")
    most = {
        layer: rows.sort("attention", descending=True)["token"][0]
        for (layer,), rows in inputs.filter(pl.col("layer") < 20).group_by("layer")
    }
    assert most[1] == "."
    assert {most[layer] for layer in range(12, 20)} == {"<|im_start|>"}
