"""A model whose weights stay on disk is measured with the same numbers, and each weight is read once."""

import gc
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from accelerate.utils import OffloadedWeightsLoader
from polars.testing import assert_frame_equal
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from monadnock.attacking import attack
from monadnock.compression.measuring import compress
from monadnock.errors import MonadnockError
from monadnock.explaining import explain
from monadnock.models import Adapter, load
from monadnock.models.components import parameters
from monadnock.models.family import families
from monadnock.models.layerwise import embed, logits_of, run_layer
from monadnock.models.offload import memory
from monadnock.scanning import scan
from monadnock.sensitivity import measure
from monadnock.sites import Site, Stream
from monadnock.training import finetune
from monadnock.verifying import verify
from tests.catalogue.planted import plant, publish
from tests.tiny import tiny_model
from tests.words import random_words, word_tokenizer, write_words

__all__ = ["publish"]
pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = {"length": 24, "tokens": 72, "progress": False}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_words(tmp_path_factory.mktemp("text"), random_words(400))


def save(folder, model_type, dtype=torch.bfloat16, **how):
    tiny_model(model_type).to(dtype).save_pretrained(folder, **how)
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def reads(monkeypatch):
    """Count how often each weight is fetched."""
    counts, own = Counter(), OffloadedWeightsLoader.__getitem__

    def getitem(self, key):
        counts[key] += 1
        return own(self, key)

    monkeypatch.setattr(OffloadedWeightsLoader, "__getitem__", getitem)
    return counts


def matrices(reads):
    """What was read but norms and biases, which are small."""
    return {
        name: count for name, count in reads.items() if name.endswith(("proj", "proj.weight", "embed_tokens.weight"))
    }


def equal_runs(one, other):
    assert one.manifest.tables == other.manifest.tables
    assert one.manifest.model == other.manifest.model.model_copy(update={"device": one.manifest.model.device})
    for name in one.manifest.tables:
        assert_frame_equal(one.table(name), other.table(name), check_exact=True)


@pytest.mark.parametrize("model_type", families())
def test_a_scan_from_disk_is_that_in_memory(model_type, tmp_path, text):
    """Stored in bfloat16 and read as float32, as on a CPU; constants that bfloat16 would round are not rounded."""
    folder = save(tmp_path / "model", model_type)
    loaded = [load(folder, device=device) for device in ("cpu", "disk")]  # one tokenizer: transformers makes others
    adapters = [Adapter(each.model, word_tokenizer(), each.source) for each in loaded]
    one, other = (scan(each, out=tmp_path / f"{each.model.device}", text=text, **SIZES) for each in adapters)
    equal_runs(one, other)
    assert one.manifest.self_check == other.manifest.self_check


def restore(folder, change, **config):
    """Write a folder's weights again as `change(name, tensor)` stores each, and add to its config."""
    stored = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        stored |= change(name, tensor)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return folder


def as_fp8(name, tensor):
    """Blocks of 16 x 16 in 8 bits, a scale for each."""
    if not name.endswith(("proj.weight", "w1.weight", "w2.weight", "w3.weight")):
        return {name: tensor}
    blocks = tensor.float().unflatten(0, (-1, 16)).unflatten(2, (-1, 16))
    scale = blocks.abs().amax((1, 3)) / 448
    codes = (blocks / scale[:, None, :, None]).flatten(2).flatten(0, 1)
    return {name: codes.to(torch.float8_e4m3fn), f"{name}_scale_inv": scale}


def as_mxfp4(name, tensor):
    """Random codes of 4 bits, a scale for 32 of them."""
    if not name.endswith(("gate_up_proj", "down_proj")):
        return {name: tensor}
    experts, inputs, outputs = tensor.shape
    draw = torch.Generator().manual_seed(len(name))
    size = (experts, outputs, inputs // 32)
    blocks = torch.randint(0, 256, (*size, 16), generator=draw, dtype=torch.uint8)
    return {
        f"{name}_blocks": blocks,
        f"{name}_scales": torch.randint(118, 124, size, generator=draw, dtype=torch.uint8),
    }


def save_mxfp4(folder):
    tiny = tiny_model("gpt_oss")
    tiny.config.intermediate_size = 64
    type(tiny)(tiny.config).to(torch.bfloat16).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    apart = ["lm_head", "model.embed_tokens", "model.layers.*.self_attn", "model.layers.*.mlp.router"]
    return restore(folder, as_mxfp4, quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": apart})


def save_fp8(folder, model_type):
    told = {"quant_method": "fp8", "weight_block_size": [16, 16], "activation_scheme": "dynamic"}
    return restore(save(folder, model_type), as_fp8, quantization_config=told)


def weights(adapter):
    return {name: values.clone() for _, name, values in parameters(adapter)}


MADE = {
    "fp8": lambda folder: save_fp8(folder, "llama"),
    "fp8 experts": lambda folder: save_fp8(folder, "mixtral"),
    "mxfp4 experts": save_mxfp4,
    "float32 experts, bfloat16 in the config": lambda folder: restore(
        save(folder, "mixtral", torch.float32), lambda name, tensor: {name: tensor}, dtype="bfloat16"
    ),
    "float16 experts, bfloat16 in the config": lambda folder: restore(
        save(folder, "mixtral", torch.float16), lambda name, tensor: {name: tensor}, dtype="bfloat16"
    ),
}


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
@pytest.mark.parametrize("kind", MADE)
def test_what_transformers_makes_of_the_stored_weights_is_not_rounded_on_disk(kind, dtype, tmp_path):
    folder = MADE[kind](tmp_path / "model")
    memory, disk = (weights(load(folder, device=device, dtype=dtype)) for device in ("cpu", "disk"))
    assert memory.keys() == disk.keys()
    assert all(memory[name].dtype == disk[name].dtype for name in memory)
    assert [name for name in memory if not torch.equal(memory[name], disk[name])] == []


@pytest.mark.parametrize("kind", MADE)
def test_a_scan_of_what_transformers_makes_is_that_in_memory(kind, tmp_path, text):
    """To the last bit, although a weight in a file begins at another address than one that was made in memory."""
    folder = MADE[kind](tmp_path / "model")
    equal_runs(*(scan(folder, out=tmp_path / place, device=place, text=text, **SIZES) for place in ("cpu", "disk")))


@pytest.mark.parametrize("model_type", ["llama", "mixtral", "gemma3_text"])
def test_every_matrix_is_read_once_a_scan(model_type, tmp_path, text, reads):
    adapter = load(save(tmp_path / "model", model_type), device="disk")
    expected = {name for name, parameter in adapter.model.named_parameters() if parameter.dim() > 1}
    reads.clear()
    scan(adapter, out=tmp_path / "run", text=text, **SIZES)
    twice = {"lm_head.weight"} if model_type == "gemma3_text" else set()  # the embedding again, which is tied
    counts = {name: count for name, count in reads.items() if name in expected | twice}
    assert counts == dict.fromkeys(expected | twice, 1)
    assert all(parameter.is_meta for parameter in adapter.model.parameters())


def test_a_search_reads_no_layer_in_vain(tmp_path, publish, reads):
    planted = plant(tmp_path, "llama")
    publish(planted.entry())
    planted.adapter.model.save_pretrained(tmp_path / "model")
    planted.adapter.tokenizer.save_pretrained(tmp_path / "model")
    adapter = load(tmp_path / "model", device="disk")
    reads.clear()
    verdict = verify(adapter, entry=planted.entry().model)
    assert verdict.outcome == "match" and verdict.layers_run == 2 < verdict.num_layers
    layers = {name.split("layers.")[1][0] for name in reads if "layers." in name}
    assert layers == {"0", "1"} and set(reads.values()) == {1}
    assert "lm_head.weight" not in reads


def test_sensitivity_from_disk(tmp_path, text, reads):
    folder = save(tmp_path / "model", "llama")
    runs = []
    for device in ("cpu", "disk"):
        reads.clear()
        how = {"modules": ["o", "down"], "text": text, "device": device, **SIZES}
        runs.append(measure(folder, out=tmp_path / device, **how))
    equal_runs(*runs)
    assert max(matrices(reads).values()) == 2, "once by the scan that begins the run"
    reads.clear()
    measure(folder, out=tmp_path / "disk", **how)
    assert max(matrices(reads).values()) == 1, "nothing to do, once it is known to be the same model"


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "falcon", "mixtral"])
def test_layer_by_layer_is_a_forward_pass(model_type, tmp_path):
    adapter = load(save(tmp_path / "model", model_type), device="disk")
    ids = torch.randint(3, 100, (12,), generator=torch.Generator().manual_seed(0))
    state = embed(adapter, ids)
    for layer in range(adapter.num_layers):
        state = run_layer(adapter, ids, layer, state, {})
    assert torch.equal(logits_of(adapter, ids, state, 12), load(tmp_path / "model", device="cpu").forward(ids, keep=12))


def test_what_had_to_be_written_is_taken_away(tmp_path, monkeypatch):
    """Experts are fused into files of their own, which go with the model."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "aside"))
    (tmp_path / "aside").mkdir()
    adapter = load(save(tmp_path / "model", "mixtral"), device="disk")
    assert list((tmp_path / "aside").rglob("*.safetensors"))
    del adapter
    gc.collect()
    assert not list((tmp_path / "aside").iterdir())


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_shard_is_told_before_anything_is_measured(tmp_path, text, damage):
    folder = save(tmp_path / "model", "llama", max_shard_size="20KB")
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink() if damage == "missing" else shard.write_bytes(shard.read_bytes()[:3000])
    said = (
        "names model-00002-of-.* is not there"
        if damage == "missing"
        else r"model-00002-of-.*3000 bytes\) was cut short"
    )
    with pytest.raises(MonadnockError, match=f"could not be loaded: its weights cannot be read: .*{said}"):
        scan(folder, device="disk", out=tmp_path / "run", text=text, **SIZES)
    assert not (tmp_path / "run").exists()


def test_a_shard_that_goes_away_meanwhile_is_told(tmp_path, text):
    adapter = load(save(tmp_path / "model", "llama", max_shard_size="20KB"), device="disk")
    for shard in sorted((tmp_path / "model").glob("*.safetensors"))[1:]:
        shard.unlink()
    with pytest.raises(MonadnockError, match="of the checkpoint cannot be read any more"):
        scan(adapter, out=tmp_path / "run", text=text, **SIZES)
    assert not (tmp_path / "run").exists()


def test_what_is_larger_than_memory_is_told(tmp_path, monkeypatch):
    folder = save(tmp_path / "model", "llama")
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    monkeypatch.setattr("monadnock.models.loading.memory", lambda: size * 3 // 2)
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")  # published beside, not read
    assert load(folder, device="cpu", dtype="bfloat16").num_layers == 3
    with pytest.raises(MonadnockError, match=r"as float32, there are .* GB; with device disk"):
        load(folder, device="cpu")
    assert load(folder, device="cpu", dtype="bfloat16").num_layers == load(folder, device="disk").num_layers == 3
    assert memory() is None or memory() > 2**28


def test_weights_that_changed_behind_the_first_layers_are_noticed(tmp_path, text):
    how = {"modules": ["down"], "text": text, "device": "disk", "out": tmp_path / "run", **SIZES}
    measure(save(tmp_path / "model", "llama"), layers=[0], **how)
    other = tiny_model("llama").to(torch.bfloat16)
    with torch.no_grad():
        other.model.layers[2].mlp.down_proj.weight *= 3
    other.save_pretrained(tmp_path / "model")
    with pytest.raises(MonadnockError, match="with other weights"):
        measure(tmp_path / "model", layers=[2], **how)


@pytest.mark.parametrize("verb", [attack, compress, explain, finetune])
def test_what_changes_weights_is_refused_before_anything_is_written(verb, tmp_path):
    (tmp_path / "d.jsonl").write_text('{"instruction": "w1 w2", "output": "w3"}\n' * 4)
    how = {"data": tmp_path / "d.jsonl"} if verb is finetune else {}
    with pytest.raises(MonadnockError, match="are kept on disk"):
        verb(save(tmp_path / "model", "llama"), device="disk", out=tmp_path / "run", progress=False, **how)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model_type", ["falcon", "mpt"])
def test_no_probabilities_are_kept_between_layers(model_type, tmp_path):
    adapter, ids = load(save(tmp_path / "model", model_type), device="disk"), torch.arange(3, 15)
    states = [run_layer(adapter, ids, 0, embed(adapter, ids), {Site(Stream.ATTN_PROBS, 0): lambda _: None})]
    kept = [part for state in states for part in (state if isinstance(state, tuple) else [state]) if part is not None]
    assert [part.shape for part in kept] == [(1, 12, adapter.hidden_size)]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells memory on Linux only")
def test_memory_does_not_grow_with_the_layers(tmp_path):
    """Matrices below the 32 MB from which the C library gives memory back by itself: 24 layers of 21 MB as float32."""
    sizes = {"hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 8}
    config = LlamaConfig(**sizes, vocab_size=128, bos_token_id=1)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    code = (
        "import re, sys; from pathlib import Path; from monadnock.models import load;"
        "from monadnock.models.layerwise import holding;"
        "own = lambda: int(re.search(r'RssAnon:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024;"
        "adapter = load(sys.argv[1], device='disk'); seen = [];\n"
        "for layer in range(24):\n"
        "    with holding(adapter, layer):\n"
        "        [view.read().float().square().mean() for _, _, view in adapter.matrices(layer)]\n"
        "    seen.append(own())\n"
        "print(seen[-1] - seen[1])"
    )
    ended = subprocess.run([sys.executable, "-c", code, tmp_path / "model"], capture_output=True, text=True, check=True)
    assert float(ended.stdout) < 60, "of 500 MB"


def test_a_pickle_is_refused(tmp_path):
    folder = save(tmp_path / "model", "llama")
    torch.save(tiny_model("llama").state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(MonadnockError, match="pickle, which is read whole; convert"):
        load(folder, device="disk")


def test_what_cannot_stay_on_disk_is_refused(tmp_path):
    with pytest.raises(MonadnockError, match=r"smollm2 is a GGUF file.*safetensors alone"):
        load("smollm2", device="disk")
    folder = save(tmp_path / "model", "llama")
    shutil.copytree(folder, tmp_path / "tuned")
    with pytest.raises(MonadnockError, match="adapter, which is merged"):
        load(f"{folder}+{tmp_path / 'tuned'}", device="disk")
