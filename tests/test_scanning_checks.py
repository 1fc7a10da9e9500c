"""A scan checks itself, takes NaN for a finding, and refuses in one sentence what cannot be done."""

import math
from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from monadnock import MonadnockError, observing, scan
from monadnock.data import token_windows
from monadnock.models import Adapter, Source, attention
from monadnock.observing import self_check
from tests.scans import SIZES, TOKENIZER, assert_untouched, state, tables
from tests.stats.cases import seeds, steady
from tests.tiny import tiny_model
from tests.words import word_tokenizer, write_words

pytestmark = pytest.mark.usefixtures("one_thread")


# the self-check


@steady
@given(seeds, st.floats(1e-6, 1e-1), st.floats(1e-3, 1e3))
def test_self_check_by_definition(seed, error, scale):
    random = torch.Generator().manual_seed(seed)
    expected = scale * torch.randn(4, 9, generator=random)
    found = expected.clone()
    found[2, 5] += error * expected.abs().max()
    assume(not 0.9e-3 < error < 1.1e-3)
    if error > 1e-3:
        with pytest.raises(MonadnockError, match="Observation changed the logits"):
            self_check(expected, found, 1e-3)
    else:
        check = self_check(expected, found, 1e-3)
        assert check.relative_error == pytest.approx(error, rel=0.2, abs=1e-6)
        assert check.num_logit_positions == 4


def test_self_check_and_nan():
    logits = torch.ones(2, 3)
    broken = logits.clone()
    broken[0, 1] = math.nan
    assert self_check(broken, broken.clone(), 1e-4).relative_error == 0
    nothing = torch.full((2, 3), math.nan)
    assert self_check(nothing, nothing, 1e-4).relative_error == 0
    for pair in ((logits, broken), (broken, logits)):
        with pytest.raises(MonadnockError, match="changed the logits"):
            self_check(*pair, 1e-4)


@pytest.mark.parametrize("factor", [1.02, math.nan])
def test_nothing_is_written_where_observation_changes_the_logits(model, text, tmp_path, monkeypatch, factor):
    own = attention.observed_attention

    def wrong(*args, **kwargs):
        output, probs = own(*args, **kwargs)
        return output * factor, probs

    monkeypatch.setattr(attention, "observed_attention", wrong)
    before = state(model)
    with pytest.raises(MonadnockError, match="Observation changed the logits"):
        scan(model, TOKENIZER, out=tmp_path / "run", text=text, **SIZES)
    assert list(tmp_path.iterdir()) == []
    assert_untouched(model, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_passes_the_check(model, text, tmp_path, dtype):
    check = scan(model.to(dtype), TOKENIZER, out=tmp_path / "run", text=text, **SIZES).manifest.self_check
    assert 0 <= check.relative_error <= check.tolerance == observing.TOLERANCE[dtype]


# NaN is a finding


def test_nan_in_one_weight_is_a_finding(model, text, tmp_path):
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 4] = math.nan
    run = scan(model, TOKENIZER, out=tmp_path / "run", text=text, **SIZES)
    rows = run.table("nonfinite")
    weight = "model.layers.1.mlp.down_proj.weight"
    assert rows.filter(where="weight").rows() == [("weight", 1, weight, 1)]
    streams = rows.filter(pl.col("where") != "weight").select("where", "layer", "count").rows()
    assert streams == [("residual", 1, 72)]  # feature 3 of every token; the layers below are healthy
    assert run.summary() is not None and "nan" not in str(run.table("layers")["rms"].to_list())


@pytest.mark.parametrize("tie", [True, False])
def test_an_unused_row_of_nan_is_a_finding_and_nothing_else(text, tmp_path, tie):
    model = tiny_model("llama", num_hidden_layers=2, tie_word_embeddings=tie)
    clean = scan(model, TOKENIZER, out=tmp_path / "clean", text=text, **SIZES)
    with torch.no_grad():
        model.get_input_embeddings().weight[101] = math.nan  # w98
    run = scan(model, TOKENIZER, out=tmp_path / "run", text=text, **SIZES)
    assert run.table("nonfinite").rows() == [("weight", None, "model.embed_tokens.weight", 32)]
    found = tables(run)
    assert {name for name, rows in tables(clean).items() if rows != found[name]} == {"nonfinite"}


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "gpt_oss", "gemma2"])
def test_a_model_of_nothing_but_nan_is_a_finding(family, text, tmp_path):
    model = tiny_model(family)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    run = scan(model, TOKENIZER, out=tmp_path / "run", text=text, **SIZES)
    places = set(run.table("nonfinite").select("where", "layer").rows())
    assert {("residual", layer) for layer in range(3)} | {("weight", None)} <= places
    assert not run.table("massive_weights")["massive"].any()
    assert str(run.summary())


@pytest.mark.parametrize("tokens", [23, 48])
def test_a_router_of_nan_is_a_finding(text, tmp_path, tokens):
    model = tiny_model("mixtral")
    with torch.no_grad():
        model.model.layers[1].mlp.gate.weight[2] = math.nan
    run = scan(model, TOKENIZER, out=tmp_path / "run", text=text, length=23, tokens=tokens)
    where = run.table("nonfinite").filter(where="weight").select("layer", "name", "count").rows()
    assert where == [(1, "model.layers.1.mlp.gate.weight", 32)]


# requests that cannot be met

FEW_WORDS = "w1 w2 w3"
BEYOND = word_tokenizer(first_id=100)  # w28 and later lie beyond 128 embeddings
NO_BOS = word_tokenizer(bos=False)


def far_bos():
    tokenizer = word_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    tokenizer.add_tokens([f"x{i}" for i in range(30)])
    tokenizer.add_special_tokens({"bos_token": "<start>"})
    assert tokenizer.bos_token_id >= 128
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "arguments", "message"),
    [
        (TOKENIZER, {"probes": ["wieghts"]}, "no probe 'wieghts': did you mean weights"),
        (TOKENIZER, {"probes": ["activations:residul"]}, "no stream 'residul'.*did you mean residual"),
        (TOKENIZER, {"probes": []}, "No probe was asked for"),
        (TOKENIZER, {"length": 257}, "Windows of 257 tokens were asked, but .* sees at most 256"),
        (TOKENIZER, {"length": 1}, "a window needs at least 2 tokens"),
        (TOKENIZER, {"length": 0}, "Windows of 0 tokens"),
        (TOKENIZER, {"tokens": 0}, "Windows of 0 tokens and 0 tokens in all"),
        (TOKENIZER, {"tokens": -4}, "Windows of -4 tokens"),
        (TOKENIZER, {"text": "missing.txt"}, "missing.txt cannot be read"),
        (TOKENIZER, {"dataset": "some/where"}, "Both a text file and a data set"),
        (TOKENIZER, {"text": FEW_WORDS}, "has 3 tokens, too short for one window of 24"),
        (BEYOND, {}, r"gives id 1\d\d, but the model has 128 embeddings"),
        (far_bos(), {"bos": False}, r"gives id 1\d\d, but the model has 128 embeddings"),
        (NO_BOS, {"bos": True}, "A BOS token was asked, but this tokenizer has none"),
        (None, {}, "without its tokenizer"),
    ],
)
def test_a_request_that_cannot_be_met(model, text, tmp_path, tokenizer, arguments, message):
    place = tmp_path / "place"
    place.mkdir()
    if arguments.get("text") == FEW_WORDS:
        arguments = {"text": write_words(tmp_path, FEW_WORDS.split())}
    defaults = {"length": 24} if "tokens" not in arguments else {}
    before = state(model)
    with pytest.raises(MonadnockError, match=message) as caught:
        scan(model, tokenizer, out=place / "run", **{"text": text} | defaults | arguments)
    told = str(caught.value)
    assert "\n" not in told and told.endswith((".", "?"))
    assert list(place.iterdir()) == []
    assert_untouched(model, before)


@pytest.mark.parametrize("model", [Adapter(tiny_model("llama"), None, Source("x", "object")), 7, torch.nn.Linear(2, 2)])
def test_a_model_that_cannot_be_scanned(model, text, tmp_path):
    with pytest.raises(MonadnockError, match=r"without its tokenizer|was given; give a model"):
        scan(model, TOKENIZER, out=tmp_path / "run", text=text, **SIZES)
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_replaced_only_with_force(model, text, tmp_path):
    place = tmp_path / "run"
    first = scan(model, TOKENIZER, out=place, text=text, probes=["weights"], **SIZES)
    with pytest.raises(MonadnockError, match="already holds a run"):
        scan(model, TOKENIZER, out=place, text=text, **SIZES)
    with pytest.raises(MonadnockError, match="no probe"):
        scan(model, TOKENIZER, out=place, text=text, probes=["x"], force=True, **SIZES)
    assert tables(type(first).open(place)) == tables(first)
    scan(model, TOKENIZER, out=place, text=text, probes=["parameters"], force=True, **SIZES)
    assert set(type(first).open(place).manifest.tables) == {"parameters"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_other_files_are_never_overwritten(model, text, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(MonadnockError, match="holds files that are not a run"):
        scan(model, TOKENIZER, out=tmp_path, text=text, force=True, **SIZES)
    assert [path.name for path in Path(tmp_path).iterdir()] == ["thesis.tex"]


# defaults


def test_without_a_bos_token_the_first_token_is_the_start(model, text, tmp_path):
    run = scan(model, NO_BOS, out=tmp_path / "run", text=text, probes=["start_token"], **SIZES)
    facts = run.manifest.text
    ids = token_windows(NO_BOS, text=text, **SIZES).ids
    assert (facts.bos, facts.num_windows, facts.length) == (False, 3, 24)
    assert facts.start_token_id == int(ids[0, 0]) and facts.start_token == NO_BOS.decode([int(ids[0, 0])])


@pytest.mark.parametrize(
    ("asked", "shape"),
    [({}, (2, 256)), ({"tokens": 100}, (1, 100)), ({"length": 50}, (12, 50)), ({"length": 64, "tokens": 10}, (1, 64))],
)
def test_sizes_by_default(model, text, tmp_path, asked, shape):
    """Windows as long as the context, and as many as the text has (600 words here), up to 4096 tokens."""
    run = scan(model, TOKENIZER, out=tmp_path / "run", text=text, probes=["weights"], **asked)
    assert (run.manifest.text.num_windows, run.manifest.text.length) == shape
