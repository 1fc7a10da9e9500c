"""A scan runs no more than was asked, changes nothing in the model, and is the same for the same seed."""

import pytest
import torch
from polars.testing import assert_frame_equal

from monadnock import observing, scan
from monadnock.data import token_windows
from monadnock.models import Adapter, Source
from monadnock.probes import Ask
from monadnock.probes.weights import Weights
from monadnock.sites import Site, Stream
from monadnock.stats import Magnitude, Statistic
from tests.scans import SIZES, TOKENIZER, assert_untouched, state, tables
from tests.tiny import tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


# what runs


class Counted:
    """Counts the forward passes of a model, and keeps the number of tokens of each."""

    def __init__(self, model):
        self.lengths: list[int] = []
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _module, _args, kwargs) -> None:
        self.lengths.append(kwargs["input_ids"].shape[1])


@pytest.mark.parametrize(
    ("probes", "lengths"),
    [
        (["weights"], []),
        (["weights", "parameters"], []),
        (["router"], []),  # a dense model has none
        (["activations"], [24] * 4),  # three windows, and the first without observation
        (["attention"], [24] * 4),
        (["start_token"], [1] + [24] * 4),
        (None, [1] + [24] * 4),
    ],
)
def test_forward_passes(model, text, tmp_path, probes, lengths):
    count = Counted(model)
    run = scan(model, TOKENIZER, out=tmp_path / "run", text=text, probes=probes, **SIZES)
    assert count.lengths == lengths
    check = run.manifest.self_check
    assert check.num_logit_positions == 24 if lengths else check is None


def test_only_the_union_of_asked_sites_is_hooked(model, text, tmp_path, monkeypatch):
    hooked = []
    observe = observing.observe

    def spy(adapter, watchers):
        hooked.append(set(watchers))
        return observe(adapter, watchers)

    monkeypatch.setattr(observing, "observe", spy)
    probes = ["activations:query+residual", "start_token"]
    scan(model, TOKENIZER, out=tmp_path / "run", text=text, probes=probes, **SIZES)
    start, windows = hooked
    assert start == {Site(s, layer) for s in (Stream.RESIDUAL, Stream.DOWN_PROJ_INPUT) for layer in range(2)}
    assert windows == start | {Site(Stream.QUERY, layer) for layer in range(2)}


def test_probes_with_arguments(model, text, tmp_path):
    run = scan(model, TOKENIZER, out=tmp_path / "run", text=text, probes=["activations:query+key"], **SIZES)
    layers = run.table("layers")
    assert layers.select("stream", "layer").rows() == [("query", 0), ("query", 1), ("key", 0), ("key", 1)]
    ids = token_windows(TOKENIZER, text=text, **SIZES).ids
    with torch.no_grad():
        x = model.model.layers[0].input_layernorm(model.model.embed_tokens(ids))
        queries = model.model.layers[0].self_attn.q_proj(x)
    assert layers["mean_abs"][0] == pytest.approx(float(queries.abs().mean()), rel=1e-4)
    assert run.manifest.probes == ["activations"]


class Own:
    """A probe of somebody else, given as an object."""

    name = "own"
    tables = ("nonfinite",)
    thresholds = {"own.limit": 4.0}  # noqa: RUF012

    def __init__(self, statistic: type[Statistic] = Magnitude):
        self.statistic = statistic

    def asks(self, adapter):
        return [Ask(Stream.MLP_INPUT, self.statistic), Ask(Stream.ATTN_PROBS, _Blocks)]

    def findings(self, evidence):
        seen = evidence.get(_Blocks, Stream.ATTN_PROBS, 1)
        return {"nonfinite": [{"where": "own", "layer": 1, "name": "text", "count": seen.queries}]}


class _Blocks(Statistic):
    queries = 0

    def update(self, batch, window):
        self.queries += batch.probs.shape[1]
        self.seen[window] = True


class _Broken(Statistic):
    def update(self, batch, window):
        raise RuntimeError("a bug in a probe")


def test_a_probe_object_beside_registered_ones(model, text, tmp_path):
    run = scan(model, TOKENIZER, out=tmp_path / "run", text=text, probes=[Own(), "weights"], **SIZES)
    assert run.table("nonfinite").rows() == [("own", 1, "text", 72)]
    assert run.manifest.probes == ["own", "weights"]
    assert run.manifest.thresholds == {"own.limit": 4.0} | Weights.thresholds


# the model is given back as it was


@pytest.mark.parametrize("family", ["llama", "mixtral", "gpt_oss", "mpt"])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_given_back(family, training, text, tmp_path):
    model = tiny_model(family, num_hidden_layers=2) if family not in ("gpt_oss", "mpt") else tiny_model(family)
    model.train(training)
    before = state(model)
    scan(model, TOKENIZER, out=tmp_path / "run", text=text, **SIZES)
    assert_untouched(model, before)


def test_parts_keep_their_own_mode(model, text, tmp_path):
    """As in fine-tuning, where some modules are frozen in evaluation mode."""
    model.train()
    model.model.layers[0].eval()
    before = state(model)
    scan(model, TOKENIZER, out=tmp_path / "run", text=text, **SIZES)
    assert_untouched(model, before)


@pytest.mark.parametrize("family", ["llama", "mpt"])
def test_the_model_is_given_back_after_an_exception_in_a_probe(family, text, tmp_path):
    model = tiny_model(family).train()
    before = state(model)
    with pytest.raises(RuntimeError, match="a bug in a probe"):
        scan(model, TOKENIZER, out=tmp_path / "run", text=text, probes=[Own(_Broken), "attention"], **SIZES)
    assert_untouched(model, before)
    assert list(tmp_path.iterdir()) == []


def test_dropout_is_off_during_a_scan(text, tmp_path):
    runs = []
    for mode in (True, False):
        model = tiny_model("gpt2", resid_pdrop=0.5, attn_pdrop=0.5, embd_pdrop=0.5).train(mode)
        runs.append(scan(model, TOKENIZER, out=tmp_path / str(mode), text=text, **SIZES))
    assert tables(runs[0]) == tables(runs[1])


# seeds


def test_the_same_seed_gives_the_same_numbers_and_another_one_other_windows(model, text, tmp_path):
    first, again, other = (
        scan(model, TOKENIZER, out=tmp_path / name, text=text, seed=seed, **SIZES)
        for name, seed in (("first", 5), ("again", 5), ("other", 6))
    )
    assert tables(first) == tables(again)
    assert first.manifest.text == again.manifest.text
    assert first.manifest.text.token_hash != other.manifest.text.token_hash
    assert tables(first)["layers"] != tables(other)["layers"]
    assert tables(first)["start_states"] == tables(other)["start_states"]
    assert tables(first)["weights"] == tables(other)["weights"]


def test_a_folder_and_its_model_give_the_same_numbers(model, text, tmp_path):
    model.save_pretrained(tmp_path / "model")
    TOKENIZER.save_pretrained(tmp_path / "model")
    loaded = scan(tmp_path / "model", out=tmp_path / "loaded", text=text, device="cpu", **SIZES)
    passed = scan(Adapter(model, TOKENIZER, Source("x", "object")), out=tmp_path / "given", text=text, **SIZES)
    for name in ("layers", "heads", "weights"):  # rounding depends on where a weight lies in memory
        assert_frame_equal(loaded.table(name), passed.table(name), rel_tol=1e-4)
    assert loaded.manifest.model.source == "folder"
