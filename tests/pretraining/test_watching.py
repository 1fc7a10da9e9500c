"""One look: equal to what plain passes give, the same sinks as a scan's, and nothing changed in the model."""

import pytest
import torch

from monadnock import MonadnockError
from monadnock.data import token_windows
from monadnock.models import Adapter, Source
from monadnock.models.variants import VARIANTS, build
from monadnock.pretraining import watch
from monadnock.scanning import scan
from tests.models.conftest import probabilities
from tests.planting import Patient, Reserved
from tests.scans import assert_untouched, state
from tests.tiny import tiny_model
from tests.words import BOS_ID, random_words, word_tokenizer, write_words

TOKENIZER = word_tokenizer()
IDS = torch.randint(3, 100, (3, 24), generator=torch.Generator().manual_seed(2))
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "opt", "mixtral", "mpt", "gemma3_text"])
def test_numbers_are_those_of_plain_passes(model_type):
    model = tiny_model(model_type).train()
    before = state(model)
    rows = watch(model, IDS)
    assert model.training
    assert_untouched(model, before)
    model.eval()
    adapter = Adapter(model, None, Source("tiny", "object"))
    hidden = []
    for layer in range(adapter.num_layers):
        parts = []
        handle = adapter.layers[layer].register_forward_hook(lambda _m, _a, out, parts=parts: parts.append(out))
        with torch.no_grad():
            for ids in IDS:
                model(ids[None])
        handle.remove()
        hidden.append(torch.cat([part[0] if isinstance(part, tuple) else part for part in parts]).double())
    for row, h in zip(rows, hidden, strict=True):
        top = h.abs().flatten(1).topk(3).values.mean(0)
        assert [row[f"top_{k}"] for k in (1, 2, 3)] == pytest.approx(top.tolist(), rel=1e-5)
        assert row["median"] == pytest.approx(float(h.abs().flatten(1).median(1).values.mean()), rel=1e-5)
        assert row["start"] == pytest.approx(float(h[:, 0].abs().amax(1).mean()), rel=1e-5)
        centred = h - h.mean()
        assert row["kurtosis"] == pytest.approx(float((centred**4).mean() / (centred**2).mean() ** 2), rel=1e-4)
        assert row["gated_sink"] is None


def test_sinks_are_those_of_the_table_heads(tmp_path):
    source = {"text": write_words(tmp_path, random_words(300)), "length": 32, "tokens": 96}
    patient = Patient("llama", token_windows(TOKENIZER, **source).ids, Reserved(0, 1, 2))
    patient.plant_rows(1, [40], [4e3], 9, 9e3)
    patient.plant_sink(2, 3, BOS_ID, 9)
    run = scan(patient.adapter.model, TOKENIZER, out=tmp_path / "run", progress=False, **source)
    sinks = [row["sinks"] for row in watch(patient.adapter, patient.ids)]
    assert sinks == [run.table("heads").filter(layer=layer)["sink"].sum() for layer in range(4)] and sinks[2] > 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_gate_times_attention_is_seen_where_there_is_a_gate(variant):
    torch.manual_seed(1)
    model = build("gpt2", variant, vocab_size=128, n_embd=32, n_layer=2, n_head=4, n_positions=64, attn_pdrop=0.0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".variant." in name:
                parameter.normal_()
    (_, row) = watch(model, IDS[:1])
    adapter = Adapter(model.eval(), None, Source("tiny", "object"))
    probs = probabilities(adapter, IDS[0])[1]  # [head, query, key]
    counts = torch.arange(24, 0, -1)
    eligible = counts >= 0.25 * 24
    assert row["largest_sink"] == pytest.approx(float((probs.sum(1) / counts)[:, eligible].max()), rel=1e-4)
    if variant not in ("context_scale", "gate"):
        assert row["gated_sink"] is None
        return
    seen = []
    module = adapter.module(1, adapter.family.attention_module)

    def keep(_module, args, kwargs):
        seen.append((args[0] if args else kwargs["hidden_states"]).detach())

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        model(IDS[:1])
    handle.remove()
    scale = module.variant.scale(seen[0]).detach()[0].mean(-1).t()  # [head, query]
    wanted = float(((probs * scale[:, :, None]).sum(1) / counts)[:, eligible].max())
    assert row["gated_sink"] == pytest.approx(wanted, rel=1e-4)


def test_token_ids_that_the_model_does_not_know_are_refused():
    with pytest.raises(MonadnockError, match="token ids from 0 to 99999; the model knows 0 to"):
        watch(tiny_model("llama"), torch.tensor([[0, 99999]]))
