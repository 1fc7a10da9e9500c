"""Loading: every kind of checkpoint gives the saved model, and every broken one a single sentence."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open

from monadnock.errors import MonadnockError
from monadnock.models import load, loading, variants
from tests.cli.bad_models import BAD, MARK, as_pickle, config, make, own_code
from tests.tiny import tiny_model
from tests.words import word_tokenizer

IDS = torch.tensor([1, 5, 9, 40, 77, 3])


@pytest.fixture(scope="module")
def saved():
    return tiny_model("llama")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, saved):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    saved.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


def shards(folder):
    weights = tiny_model("llama")
    (folder / "model.safetensors").unlink()
    weights.save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert (folder / "model.safetensors.index.json").is_file()


KINDS = {"safetensors": lambda folder: None, "shards": shards, "pickle": as_pickle}


@pytest.mark.parametrize("kind", KINDS)
def test_the_loaded_model_is_the_saved_one(saved, whole, tmp_path, kind):
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    KINDS[kind](folder)
    adapter = load(folder)
    assert torch.equal(adapter.forward(IDS, len(IDS)), saved(IDS[None]).logits[0])
    assert not adapter.model.training
    assert adapter.dtype == torch.float32
    assert (adapter.source.id, adapter.source.kind) == (str(folder), "folder")
    assert adapter.tokenizer("w0 w9")["input_ids"] == [3, 12]
    assert adapter.family.model_type == "llama"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "auto"])
def test_dtypes(saved, whole, dtype):
    adapter = load(whole, dtype=dtype)
    expected = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    assert {parameter.dtype for parameter in adapter.model.parameters()} == {expected} == {adapter.dtype}
    own = saved.get_parameter("model.layers.0.mlp.up_proj.weight")
    assert torch.equal(adapter.model.get_parameter("model.layers.0.mlp.up_proj.weight"), own.to(expected))


def test_auto_is_float32_on_a_cpu_whatever_the_checkpoint_holds(tmp_path):
    tiny_model("llama").bfloat16().save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.get_tensor("model.norm.weight").dtype == torch.bfloat16
    assert load(tmp_path).dtype == torch.float32
    assert load(tmp_path, device_map="auto").dtype == torch.bfloat16


def test_a_device_may_be_named(whole):
    assert load(whole, device="cpu").device == torch.device("cpu")


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_loaded_is_told_in_one_sentence(whole, tmp_path, name):
    with pytest.raises(MonadnockError, match=BAD[name][1]) as caught:
        load(make(name, whole, tmp_path))
    said = str(caught.value)
    assert "\n" not in said
    assert "Traceback" not in said
    assert not list(tmp_path.rglob(MARK)), "code that came with the checkpoint was run"


INDEXES = {
    "": "is not JSON",
    "[": "is not JSON",
    "[]": "it is a list, not an object with a weight_map",
    "{}": "it has no object metadata",
    '{"metadata": {}}': "it has no object weight_map",
    '{"metadata": {}, "weight_map": []}': "it has no object weight_map",
    '{"metadata": null, "weight_map": {"a": "model-00001.safetensors"}}': "it has no object metadata",
    '{"metadata": {}, "weight_map": {}}': "names no weights",
    '{"metadata": {}, "weight_map": {"a": 3}}': "its weight_map has 3 for a file's name",
    '{"metadata": {}, "weight_map": {"a": null}}': "its weight_map has None for a file's name",
}


@pytest.mark.parametrize("device", ["cpu", "disk"])
@pytest.mark.parametrize("content", INDEXES)
def test_a_broken_index_is_named(whole, tmp_path, content, device):
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    shards(folder)
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(MonadnockError) as caught:
        load(folder, device=device)
    said = str(caught.value)
    assert said.startswith(f"{folder} could not be loaded: model.safetensors.index.json cannot be used: ")
    assert INDEXES[content] in said and said.endswith("; fetch that file again.")


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "..", "a/b.safetensors"])
def test_an_index_that_points_outside_its_folder_is_refused(whole, tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    shards(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"a": name}}))
    with pytest.raises(MonadnockError, match="points outside its folder"):
        load(folder)


@pytest.mark.parametrize("device", ["cpu", "disk"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "model.safetensors.index.json names {}, which is not there; fetch that file."),
        (b"", "{} (0 bytes) was cut short or is damaged"),
        (b"version https://git-lfs.github.com/spec/v1\n" * 3, "{} (129 bytes) was cut short or is damaged"),
        ("cut", "{} (20000 bytes) was cut short or is damaged"),
    ],
)
def test_a_shard_that_is_not_whole_is_named_before_any_weight_is_read(
    whole, tmp_path, monkeypatch, content, said, device
):
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    shards(folder)
    shard = sorted(folder.glob("*.safetensors"))[1]
    kept = shard.read_bytes()[:20000] if content == "cut" else content
    shard.unlink() if kept is None else shard.write_bytes(kept)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", pytest.fail)
    with pytest.raises(MonadnockError) as caught:
        load(folder, device=device)
    assert said.format(shard.name) in str(caught.value)


def test_a_whole_file_goes_before_an_index_beside_it(saved, whole, tmp_path):
    """As for transformers, which does not look for the shards then."""
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    left = {"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(left))
    assert torch.equal(load(folder).forward(IDS, len(IDS)), saved(IDS[None]).logits[0])


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize(
    ("held", "asked"),
    [
        ("gate", "default"),
        ("default", "gate"),
        ("sigmoid", "default"),
        ("default", "sigmoid"),
        ("gate", "context_scale"),
    ],
)
def test_weights_of_another_attention_variant_are_refused(tmp_path, architecture, held, asked):
    sizes = {"llama": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}}
    sizes["gpt2"] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    model = variants.build(architecture, held, **sizes[architecture], vocab_size=128, bos_token_id=1, eos_token_id=2)
    model.save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    assert load(tmp_path).config.attention_variant == held
    config(attention_variant=asked)(tmp_path)
    with pytest.raises(
        MonadnockError, match=f"has attention_variant {asked} in its config.json, but weights of {held}"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "float31"}, "dtype 'float31' was asked: did you mean float32"),
        ({"dtype": "int8"}, "dtype 'int8' was asked"),
        ({"device": "toaster"}, "Device 'toaster' cannot be used here"),
        ({"device": "cuda:99"}, "Device 'cuda:99' cannot be used here"),
        ({"device": "meta"}, "Device 'meta' holds no values"),
    ],
)
def test_requests_that_cannot_be_met(whole, options, said):
    with pytest.raises(MonadnockError, match=said) as caught:
        load(whole, **options)
    assert "\n" not in str(caught.value)


def test_nothing_is_read_for_a_request_that_cannot_be_met(whole, monkeypatch):
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", pytest.fail)
    with pytest.raises(MonadnockError, match="float31"):
        load(whole, dtype="float31")


def test_own_code_is_run_only_when_trusted(whole, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(whole, copy)
    own_code(copy)
    with pytest.raises(MonadnockError, match="could not be loaded: run"):
        load(copy, trust_remote_code=True)
    assert (tmp_path / MARK).exists(), "the tests above see code that was run"


def test_own_code_of_a_known_model_type_is_left_alone(saved, whole, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(whole, copy)
    own_code(copy)
    config(model_type="llama")(copy)
    adapter = load(copy)
    assert torch.equal(adapter.forward(IDS, len(IDS)), saved(IDS[None]).logits[0])
    assert not (tmp_path / MARK).exists()


def test_a_revision_goes_to_the_hub(monkeypatch):
    assert loading._locate("owner/name@v1", None) == (
        loading.Source("owner/name", "hub", "v1"),
        "owner/name",
        {"revision": "v1"},
    )
    assert loading._locate("owner/name", "v2")[2] == {"revision": "v2"}
    assert loading._locate("owner/name@v1", "v2")[2] == {"revision": "v2"}
    assert loading._locate("owner/name", None)[2] == {"revision": "main"}


def test_a_folder_with_a_packaged_models_name_goes_before_it(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "smollm2")
    assert load("smollm2").source.kind == "folder"


def test_transformers_keeps_its_settings(whole, capfd):
    from transformers.utils import logging

    level = logging.get_verbosity()
    capfd.readouterr()
    load(whole)
    assert logging.get_verbosity() == level
    assert logging.is_progress_bar_enabled()
    assert capfd.readouterr() == ("", "")
