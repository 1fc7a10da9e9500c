"""Models with an adapter merged: the weights are W + B A, the model is known by both, and no other adapter fits."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from monadnock import MonadnockError, load
from monadnock.models.tuned import with_adapter
from monadnock.preparing import open_model
from monadnock.sameness import check_same
from monadnock.scanning import scan
from tests.cli.conftest import save
from tests.tiny import tiny_model

RANK, ALPHA = 3, 6


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "base")


def adapter(folder, model, **options):
    torch.manual_seed(3)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", init_lora_weights=False, **options)
    get_peft_model(model, config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(base, tmp_path_factory):
    return adapter(tmp_path_factory.mktemp("adapters") / "a+b", load(base).model)


def test_weights_are_the_products_added_up(base, saved):
    plain, tuned = load(base), load(f"{base}+{saved}")
    parts = load_file(saved / "adapter_model.safetensors")
    for layer in range(plain.num_layers):
        for role, path in (("q", "self_attn.q_proj"), ("up", "mlp.up_proj"), ("down", "mlp.down_proj")):
            a, b = (parts[f"base_model.model.model.layers.{layer}.{path}.lora_{side}.weight"] for side in "AB")
            expected = plain.weight(layer, role).read() + ALPHA / RANK * b @ a
            torch.testing.assert_close(tuned.weight(layer, role).read(), expected)
    copied = with_adapter(plain, saved)
    ids = torch.arange(3, 20)
    assert torch.equal(copied.forward(ids), tuned.forward(ids))
    assert torch.equal(plain.forward(ids), load(base).forward(ids)) and not torch.equal(
        plain.forward(ids), tuned.forward(ids)
    )


def test_it_is_known_by_base_and_adapter(base, saved, tmp_path):
    tuned = load(f"{base}+{saved}")
    assert tuned.source.id == f"{base}+{saved}" and "+sha256:" in tuned.source.revision
    run = scan(tuned, out=tmp_path / "run", probes=["start_token"], tokens=64, progress=False)
    check_same(run, open_model(f"{base}+{saved}"), [])
    with pytest.raises(MonadnockError, match="the model is"):
        check_same(run, load(base), [])


def test_two_adapters_can_be_merged_one_after_another(base, saved):
    twice, once = load(f"{base}+{saved}+{saved}"), load(f"{base}+{saved}")
    delta = once.weight(0, "q").read() - load(base).weight(0, "q").read()
    torch.testing.assert_close(twice.weight(0, "q").read(), once.weight(0, "q").read() + delta)


def test_what_is_no_adapter_of_the_model_is_refused(base, saved, tmp_path):
    with pytest.raises(MonadnockError, match="is no adapter: it holds no adapter_config"):
        load(f"{base}+{base}")
    deeper = adapter(tmp_path / "deeper", tiny_model("llama", num_hidden_layers=5))
    with pytest.raises(MonadnockError, match="weights are not the model's"):
        load(f"{base}+{deeper}")
    wider = adapter(tmp_path / "wider", tiny_model("llama", intermediate_size=80))
    with pytest.raises(MonadnockError, match=r"is no adapter of .*size mismatch"):
        load(f"{base}+{wider}")
    other = adapter(tmp_path / "other", tiny_model("gpt2"))
    with pytest.raises(MonadnockError, match="is no adapter of"):
        load(f"{base}+{other}")


def test_damaged_adapters_are_refused(base, saved, tmp_path):
    lacking, cut, odd = (shutil.copytree(saved, tmp_path / name) for name in ("lacking", "cut", "odd"))
    parts = load_file(saved / "adapter_model.safetensors")
    save_file(dict(list(parts.items())[1:]), lacking / "adapter_model.safetensors")
    with pytest.raises(MonadnockError, match="1 of its weights are not the model's"):
        load(f"{base}+{lacking}")
    (cut / "adapter_model.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(MonadnockError, match="is no adapter of"):
        load(f"{base}+{cut}")
    (odd / "adapter_config.json").write_text(json.dumps({"peft_type": "NEVER"}))
    with pytest.raises(MonadnockError, match="is no adapter of"):
        load(f"{base}+{odd}")
    (odd / "adapter_config.json").write_text("no")
    with pytest.raises(MonadnockError, match="is no adapter of"):
        load(f"{base}+{odd}")


def test_a_pickle_that_runs_code_is_not_run(base, saved, tmp_path):
    bad = shutil.copytree(saved, tmp_path / "bad")
    (bad / "adapter_model.safetensors").unlink()
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    torch.save({"x": Evil()}, bad / "adapter_model.bin")
    with pytest.raises(MonadnockError, match="is no adapter of"):
        load(f"{base}+{bad}")
    assert not marker.exists()


def test_a_name_with_a_plus_and_no_folder_is_a_name():
    with pytest.raises(MonadnockError, match="smollm2"):
        load("smollm2+nowhere")
