"""The start token alone: what a scan sees, in as many layers as are wanted and no more."""

from contextlib import nullcontext

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from accelerate.utils import OffloadedWeightsLoader

from monadnock.errors import MonadnockError
from monadnock.models import Adapter, Source
from monadnock.models.family import families
from monadnock.models.start import run_layers, start_states
from monadnock.scanning import scan
from monadnock.sites import Site, Stream
from tests.scans import assert_untouched, state
from tests.tiny import tiny_model
from tests.words import BOS_ID, word_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")


def adapt(model):
    return Adapter(model, None, Source("tiny", "object"))


def counted(adapter):
    """Count how often each layer's attention runs."""
    counts = [0] * adapter.num_layers

    def count(layer):
        def hook(_module, _args):
            counts[layer] += 1

        return hook

    for layer in range(adapter.num_layers):
        adapter.module(layer, adapter.family.attention_module).register_forward_pre_hook(count(layer))
    return counts


@pytest.mark.parametrize("model_type", families())
def test_it_equals_the_table_of_a_scan(model_type, text, tmp_path):
    model = tiny_model(model_type)
    run = scan(model, word_tokenizer(), probes=["start_token"], text=text, length=16, tokens=16, out=tmp_path / "run")
    before = state(model)
    found = start_states(adapt(model), BOS_ID)
    assert_untouched(model, before)
    table = run.table("start_states")
    streams = {"residual": found.residual, "down_proj_input": found.inner}
    assert set(table["stream"]) == set(streams)
    for row in table.iter_rows(named=True):
        assert streams[row["stream"]][row["layer"], row["feature"]].item() == row["value"]
        assert row["expert"] == (found.experts[row["layer"]] if row["stream"] == "down_proj_input" else None)
    for stream, states in streams.items():
        assert states.shape[0] == len(found.experts) == 3
        assert (states.dtype, states.device.type) == (torch.float32, "cpu")
        top = states.abs().topk(8, dim=1).indices.flatten().tolist()
        assert table.filter(stream=stream).sort("layer", "rank")["feature"].to_list() == top


@pytest.mark.parametrize("model_type", ["llama", "mixtral", "gpt2", "falcon", "mpt", "gpt_oss"])
@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_later_layers_never_run(model_type, wanted):
    model = tiny_model(model_type)
    adapter = adapt(model)
    whole = start_states(adapter, BOS_ID)
    counts, asked = counted(adapter), []
    before = state(model)

    def enough(states):
        asked.append(len(states.residual))
        return len(states.residual) == wanted

    part = start_states(adapter, BOS_ID, enough=enough)
    assert asked == list(range(1, wanted + 1))[: adapter.num_layers - (wanted == 3)]
    assert counts == [1] * wanted + [0] * (3 - wanted)
    assert torch.equal(part.residual, whole.residual[:wanted])
    assert torch.equal(part.inner, whole.inner[:wanted])
    assert part.experts == whole.experts[:wanted]
    assert_untouched(model, before)


def test_enough_that_is_never_enough_runs_all():
    adapter = adapt(tiny_model("llama"))
    counts = counted(adapter)
    assert len(start_states(adapter, BOS_ID, enough=lambda _: False).residual) == 3
    assert counts == [1, 1, 1]


def test_logits_are_never_computed():
    adapter, ran = adapt(tiny_model("llama")), []
    adapter.model.get_output_embeddings().register_forward_pre_hook(lambda *_: ran.append("head"))
    adapter.norm(None, "final").register_forward_pre_hook(lambda *_: ran.append("norm"))
    start_states(adapter, BOS_ID)
    assert not ran


@pytest.mark.parametrize("model_type", ["llama", "mixtral"])
def test_everything_is_put_back_when_the_question_fails(model_type):
    model = tiny_model(model_type)
    before = state(model)

    def enough(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        start_states(adapt(model), BOS_ID, enough=enough)
    assert_untouched(model, before)


@pytest.mark.parametrize("model_type", ["llama", "mixtral", "gpt2", "phi3"])
@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_offloaded_weights_of_later_layers_are_never_read(model_type, where, tmp_path, monkeypatch):
    whole, moved = adapt(tiny_model(model_type)), tiny_model(model_type)
    expected = start_states(whole, BOS_ID)
    read = []
    own = OffloadedWeightsLoader.__getitem__

    def getitem(self, key):
        read.append(key)
        return own(self, key)

    if where == "disk":
        disk_offload(moved, str(tmp_path), torch.device("cpu"))
        monkeypatch.setattr(OffloadedWeightsLoader, "__getitem__", getitem)
    else:
        cpu_offload(moved, torch.device("cpu"))
    adapter = adapt(moved)
    found = start_states(adapter, BOS_ID, enough=lambda states: len(states.residual) == 2)
    assert torch.equal(found.residual, expected.residual[:2])
    assert torch.equal(found.inner, expected.inner[:2])
    assert all(parameter.is_meta for parameter in moved.parameters()), "what was fetched was let go"
    if where == "disk":
        inside = [key.split("layers.")[-1].split("h.")[-1] for key in read if ".layers." in key or ".h." in key]
        assert {key.split(".")[0] for key in inside} == {"0", "1"}
    ids = torch.tensor([BOS_ID, 5, 6])
    assert torch.equal(adapter.forward(ids), whole.forward(ids)), "it still runs"


def test_watchers_see_a_layer_before_it_is_asked_about():
    adapter, seen = adapt(tiny_model("llama")), []
    watchers = {
        Site(Stream.RESIDUAL, layer): lambda batch: seen.append(tuple(batch.values.shape)) for layer in range(3)
    }

    def enough(layer):
        seen.append(layer)
        return layer == 1

    assert run_layers(adapter, torch.tensor([BOS_ID, 4]), watchers, enough) == 2
    assert seen == [(2, 32), 0, (2, 32), 1]


def test_broken_values_become_zeros():
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_parameter("model.layers.1.mlp.up_proj.weight")[3] = float("nan")
    found = start_states(adapt(model), BOS_ID)
    assert found.residual.isfinite().all() and found.inner.isfinite().all()
    assert found.inner[1, 3] == 0
    assert not found.residual[1].any()


def test_a_token_that_the_model_has_not():
    with pytest.raises(MonadnockError, match="gives id 128, but the model has 128 embeddings"):
        start_states(adapt(tiny_model("llama")), 128)


def test_states_that_are_not_shown(monkeypatch):
    monkeypatch.setattr("monadnock.models.start.observe", lambda *_: nullcontext())
    monkeypatch.setattr("monadnock.models.start.Adapter.forward", lambda *_: None)
    adapter = adapt(tiny_model("llama"))
    monkeypatch.setattr("monadnock.models.start.run_layers", lambda *_: 1)
    with pytest.raises(MonadnockError, match=r"Nothing was seen at residual\.0: family llama"):
        start_states(adapter, BOS_ID)
