"""Measuring whole tiny models: what is written, how it goes on, maps, names of modules, and what is refused."""

import numpy as np
import polars as pl
import pytest
import torch

from monadnock import MonadnockError
from monadnock.calibrating import walk
from monadnock.findings import Run
from monadnock.models import Adapter, Source
from monadnock.models.family import families
from monadnock.models.matrices import Matrix, find_matrices
from monadnock.preparing import text_windows
from monadnock.sensitivity import factors, measure, sensitivity_of
from monadnock.sensitivity import measuring as module
from tests.scans import assert_untouched, state
from tests.tiny import tiny_model
from tests.words import random_words, word_tokenizer, write_words

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = {"length": 24, "tokens": 96, "progress": False}


def make(model_type="llama", **changes):
    return Adapter(tiny_model(model_type, **changes), word_tokenizer(), Source(model_type, "object"))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_words(tmp_path_factory.mktemp("text"), random_words(400))


@pytest.fixture
def run_it(text, tmp_path):
    def run(adapter, **options):
        return measure(adapter, **{"text": text, "out": tmp_path / "run", **SIZES, **options})

    return run


@pytest.mark.parametrize("model_type", families())
def test_every_matrix_of_every_family_is_measured(run_it, model_type):
    adapter = make(model_type)
    before = state(adapter.model)
    run = run_it(adapter, patterns=False)
    assert_untouched(adapter.model, before)
    table = run.table("sensitivity")
    wanted = {(m.layer, m.module, m.expert) for m in find_matrices(adapter)}
    assert set(table.select("layer", "module", "expert").rows()) == wanted
    assert set(table["kind"]) == {"compensated", "plain", "sequential"}
    assert table.height == 3 * len(wanted)
    seen = table.filter(pl.col("num_tokens") > 0)
    assert (seen["total"] >= 0).all() and (seen["top_1e2"] <= 1).all()
    assert (table["num_tokens"] == 0).sum() == table["total"].is_null().sum()
    names = {name for name, _ in adapter.model.named_modules()} | {name for name, _ in adapter.model.named_parameters()}
    assert set(table["name"]) <= names


def test_numbers_are_those_of_the_inputs_of_that_layer(run_it, text):
    adapter = make()
    run = run_it(adapter, layers=[1], modules=["self_attn.o_proj"], bits=2, damping=0.1)
    windows = text_windows(adapter, text=text, length=24, tokens=96, bos=None)
    (inputs,) = walk(adapter, windows, [Matrix(1, "o")])
    hessian, weight = inputs.moment(Matrix(1, "o")).hessian, adapter.weight(1, "o").read()
    for row in run.table("sensitivity").iter_rows(named=True):
        values = sensitivity_of(weight, hessian, row["kind"], bits=2, damping=0.1)
        assert row["total"] == pytest.approx(float(values.sum()), rel=1e-4)
        assert (row["num_tokens"], row["num_inputs"], row["bits"]) == (96, 32, 2)
        line = run.table("sensitivity_lines").filter(kind=row["kind"], axis="row", rank=1).row(0, named=True)
        assert line["index"] == int(values.sum(1).argmax())
    assert set(run.table("patterns")["kind"]) == {"compensated"}
    assert "unstructured" in set(run.table("patterns")["pattern"])


def test_what_is_there_is_not_measured_again_and_more_is_added(run_it, monkeypatch):
    adapter = make()
    run_it(adapter, layers=[0], modules=["q"])
    measured = []
    one = module._measure
    monkeypatch.setattr(
        module,
        "_measure",
        lambda run, shapes, matrix, *a, **k: (measured.append(str(matrix)), one(run, shapes, matrix, *a, **k)),
    )
    run = run_it(adapter, layers=[0, 2], modules=["q", "down"])
    assert measured == ["layer 0 down", "layer 2 q", "layer 2 down"]
    run = run_it(adapter, layers=[0], modules=["q"], bits=4)
    assert measured[3:] == ["layer 0 q"] and set(run.table("sensitivity")["bits"]) == {3, 4}
    run_it(adapter, layers=[0], modules=["q"], maps=True)
    assert measured[4:] == ["layer 0 q"] and Run.open(run.path).tensor_names() == ["map-000-q"]


def test_a_stop_keeps_what_is_finished(run_it, monkeypatch):
    adapter, one = make(), module._measure

    def stop(run, shapes, matrix, *args, **kwargs):
        if matrix.layer == 1:
            raise KeyboardInterrupt
        one(run, shapes, matrix, *args, **kwargs)

    monkeypatch.setattr(module, "_measure", stop)
    with pytest.raises(KeyboardInterrupt):
        run_it(adapter, modules=["q"], patterns=False)
    monkeypatch.setattr(module, "_measure", one)
    run = run_it(adapter, modules=["q"], patterns=False)
    assert run.table("sensitivity").filter(kind="plain")["layer"].to_list() == [0, 1, 2]


def test_a_map_holds_all_that_its_entries_are_made_of(run_it, text):
    adapter = make()
    run = run_it(adapter, layers=[1], modules=["o"], maps=True, group=8)
    arrays, facts = run.tensors("map-001-o")
    weight = adapter.weight(1, "o").read()
    decoded = arrays["codes"] * arrays["step"][:, None]
    np.testing.assert_allclose(decoded, weight.numpy(), atol=float(weight.abs().max()) / 60000)
    windows = text_windows(adapter, text=text, length=24, tokens=96, bos=None)
    (inputs,) = walk(adapter, windows, [Matrix(1, "o")])
    found = factors(inputs.moment(Matrix(1, "o")).hessian, 0.01)
    np.testing.assert_allclose(arrays["plain"], found.plain, rtol=1e-6)
    np.testing.assert_allclose(arrays["compensated"], found.compensated, rtol=1e-6)
    scale, zero = (np.repeat(arrays[name], 8, axis=1) for name in ("scale", "zero"))
    levels = np.clip(np.round(decoded / scale + zero), 0, 7)
    values = (decoded - scale * (levels - zero)) ** 2 * arrays["compensated"]
    expected = sensitivity_of(weight, inputs.moment(Matrix(1, "o")).hessian, "compensated", group=8).numpy()
    np.testing.assert_allclose(values, expected, rtol=0.02, atol=float(expected.max()) * 1e-4)
    assert facts["axis"] == "column" and facts["num_heads"] == "4" and facts["d_head"] == "8"
    assert facts["pairs"].split() == ["0-4", "1-5", "2-6", "3-7"]


@pytest.mark.parametrize(
    ("model_type", "pairs"),
    [("gpt_neox", "0-2 1-3"), ("gpt2", ""), ("cohere", "0-1 2-3 4-5 6-7"), ("phi", "0-2 1-3")],
)
def test_rotary_pairs_are_the_familys_own(run_it, model_type, pairs):
    run = run_it(make(model_type), layers=[0], modules=["q"], maps=True, patterns=False)
    assert run.tensors("map-000-q")[1]["pairs"] == pairs


def test_an_expert_that_got_no_token_has_no_numbers(run_it):
    adapter = make("mixtral", num_local_experts=64, num_experts_per_tok=1)
    run = run_it(adapter, layers=[0], modules=["down"], tokens=24, maps=True)
    table = run.table("sensitivity").filter(kind="plain")
    assert table.height == 64 and (table["num_tokens"] == 0).any()
    assert table["num_tokens"].sum() == 24
    assert len(run.tensor_names()) == (table["num_tokens"] > 0).sum()
    assert "Sensitivity" in str(run.summary())


def test_names_of_modules():
    adapter, mixed, fused = make(), make("mixtral"), make("phi3")

    def found(where, *names, layers=(1,)):
        return [str(each) for each in find_matrices(where, layers, names)]

    assert found(adapter, "o") == found(adapter, "self_attn.o_proj") == found(adapter, "o_proj") == ["layer 1 o"]
    assert len(found(adapter, "all", layers=None)) == 21
    assert found(mixed, "down:2") == ["layer 1 down expert 2"]
    assert len(found(mixed, "mlp.experts.gate_up_proj")) == 8
    assert found(fused, "qkv_proj") == ["layer 1 q", "layer 1 k", "layer 1 v"]
    assert [str(each) for each in find_matrices(adapter, [2, 0, 2], ["v", "q", "v"])] == [
        "layer 0 q", "layer 0 v", "layer 2 q", "layer 2 v",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"modules": ["self_atn.o_proj"]}, "no module 'self_atn.o_proj' in llama.*self_attn.o_proj"),
        ({"modules": ["down:1"]}, "Expert 1 of down was asked, but llama has no experts"),
        ({"layers": [3]}, "Layer 3 was asked, but llama has the layers 0 to 2"),
        ({"kinds": ["plane"]}, "no kind of sensitivity 'plane'.*plain"),
        ({"bits": 0}, "give 1 to 8"),
        ({"group": 0}, "Groups of 0 columns"),
        ({"damping": float("nan")}, "A damping of nan"),
        ({"damping": 0.0, "tokens": 24}, "singular with damping 0"),
        ({"text": "none.txt"}, "none.txt"),
    ],
)
def test_bad_requests_are_told(run_it, options, told):
    with pytest.raises(MonadnockError, match=told):
        run_it(make(), **options)


def test_experts_that_there_are_not_are_told():
    with pytest.raises(MonadnockError, match="Expert 9 was asked, but mixtral has the experts 0 to 3"):
        find_matrices(make("mixtral"), [0], ["up:9"])


def test_damaged_or_missing_tensors_are_told(run_it):
    run = run_it(make(), layers=[0], modules=["k"], maps=True, patterns=False)
    with pytest.raises(MonadnockError, match=r"no tensors 'map-000-q'.*map-000-k"):
        run.tensors("map-000-q")
    file = run.path / "tensors" / "map-000-k.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(MonadnockError, match="is damaged"):
        run.tensors("map-000-k")


def test_few_tokens_and_one_row_do_no_harm(run_it):
    adapter = make()
    run = run_it(adapter, layers=[0], tokens=24)
    assert (run.table("sensitivity")["num_tokens"] < run.table("sensitivity")["num_inputs"]).any()
    assert run.table("sensitivity")["total"].is_finite().all()
    one = sensitivity_of(torch.randn(1, 4), torch.eye(4).double(), "sequential")
    assert one.shape == (1, 4)
