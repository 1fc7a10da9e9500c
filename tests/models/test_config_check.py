"""Published checkpoints pass, and what would change the maths unnoticed is refused in one sentence."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import CONFIG_MAPPING

from monadnock.errors import MonadnockError
from monadnock.models.config_check import check_config, find_family
from monadnock.models.family import Family, families, family
from tests.tiny import tiny_config

# config.json of well-known checkpoints, with the published names and values as far as remembered
PUBLISHED = json.loads(Path(__file__).with_name("published_configs.json").read_text())
_EVERYWHERE = {"transformers_version": "4.40.0", "torch_dtype": "bfloat16", "use_cache": True}


def published(name: str) -> dict[str, Any]:
    return _EVERYWHERE | PUBLISHED[name]


def config_of(settings: dict[str, Any]) -> Any:
    return CONFIG_MAPPING[settings["model_type"]].from_dict(settings)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_checkpoints_pass(name):
    config = config_of(published(name))
    ignored = check_config(config, find_family(config))
    assert set(ignored) <= set(PUBLISHED[name]), "an attribute is ignored that nobody set"


@pytest.mark.parametrize(
    ("name", "ignored"),
    [
        ("openai-community/gpt2-xl", {"n_ctx", "task_specific_params", "output_past", "gradient_checkpointing"}),
        ("openai/gpt-oss-20b", {"experts_per_token", "initial_context_length"}),
        ("mosaicml/mpt-7b", {"init_config", "tokenizer_name", "verbose"}),
        ("Qwen/Qwen3-8B", set()),
    ],
)
def test_what_is_never_read_is_listed(name, ignored):
    config = config_of(published(name))
    assert ignored <= set(check_config(config, find_family(config)))


def test_every_family_has_a_published_checkpoint():
    own = {"monadnock_gpt2", "monadnock_llama"}  # made by `monadnock pretrain`
    assert {settings["model_type"] for settings in PUBLISHED.values()} == set(families()) - own


@pytest.mark.parametrize("model_type", families())
def test_defaults_and_tiny_models_pass(model_type):
    config = CONFIG_MAPPING[model_type]()
    assert check_config(config, find_family(config)) == []
    config = tiny_config(model_type)
    assert check_config(config, find_family(config)) == []


@pytest.mark.parametrize("model_type", families())
def test_handled_attributes_exist(model_type):
    """No family claims to handle something that its config class does not know: that would be a misspelling."""
    config = CONFIG_MAPPING[model_type]()
    known = set(config.to_dict()) | set(config.attribute_map) | set(config.attribute_map.values())
    known |= {f"{name}.{inner}" for name in config.sub_configs for inner in getattr(config, name).to_dict()}
    assert family(model_type).handles <= known


def refused(model_type: str, **changes) -> str:
    config = tiny_config(model_type, **changes)
    with pytest.raises(MonadnockError) as error:
        check_config(config, find_family(config))
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("model_type", "changes", "expected"),
    [
        ("gemma2", {"final_logit_softcaping": 30.0}, "did you mean final_logit_softcapping"),
        ("llama", {"sliding_windows": 8}, "did you mean sliding_window"),
        ("gpt2", {"scale_attn_by_inverse_layer_id": True}, "did you mean scale_attn_by_inverse_layer_idx"),
        ("qwen3", {"use_sliding_windows": True}, "did you mean use_sliding_window"),
        ("mixtral", {"num_experts_per_token": 1}, "did you mean num_experts_per_tok"),
    ],
)
def test_misspelt_attributes_are_refused_with_the_nearest_names(model_type, changes, expected):
    message = refused(model_type, **changes)
    assert expected in message and f"{next(iter(changes))}=" in message and model_type in message


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("gpt2", {"add_cross_attention": True}),
        ("gemma3_text", {"use_bidirectional_attention": True}),
        ("gemma", {"use_bidirectional_attention": True}),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}),  # Gemma 3's code would not apply it
        ("mpt", {"no_bias": False}),
        ("mpt", {"expansion_ratio": 3}),
        ("mpt", {"logit_scale": 0.5}),
        ("llama", {"per_layer_config": {1: {"hidden_act": "gelu"}}}),
    ],
)
def test_attributes_that_nobody_handles_are_refused(model_type, changes):
    name = next(iter(changes))
    assert f"{name}=" in refused(model_type, **changes)


@pytest.mark.parametrize(
    "change",
    [
        {"prefix_lm": True},
        {"qk_ln": True},
        {"alibi": False},
        {"alibi_bias_max": 16},
        {"attn_uses_sequence_id": True},
        {"attn_type": "multiquery_attention"},
    ],
)
def test_nested_attributes_are_refused_one_by_one(change):
    (name,) = change
    assert f"attn_config.{name}=" in refused("mpt", attn_config=change)


@pytest.mark.parametrize(("name", "value"), [("is_causal", False), ("attention_chunk_size", 16)])
def test_undeclared_attributes_that_code_reads_are_refused(name, value):
    """`getattr(config, name, default)` in transformers: no config class declares these, but they change the mask."""
    config = tiny_config("llama")
    setattr(config, name, value)
    with pytest.raises(MonadnockError, match=f"{name}={value}"):
        check_config(config, find_family(config))


def test_the_models_own_code_is_searched_too():
    from transformers.models.gemma import modeling_gemma

    from monadnock.models.config_check import _read_by_code

    assert 'getattr(config, "use_bidirectional_attention", False)' in Path(modeling_gemma.__file__).read_text()
    read = _read_by_code(tiny_config("gemma"))
    assert read["use_bidirectional_attention"] is False
    assert read["is_causal"] is True and read["attention_chunk_size"] is None


def test_undeclared_attributes_at_the_codes_default_pass():
    config = tiny_config("llama", is_causal=True, attention_chunk_size=None)
    assert check_config(config, find_family(config)) == ["attention_chunk_size", "is_causal"]


def test_off_is_off():
    config = tiny_config("gemma", use_bidirectional_attention=False)  # the class says None
    assert check_config(config, find_family(config)) == []


def test_an_unknown_model_type_is_refused_with_the_nearest_names():
    config = CONFIG_MAPPING["qwen2_moe"]()
    with pytest.raises(MonadnockError, match=r"'qwen2_moe' is not a known family.*did you mean qwen2") as error:
        find_family(config)
    assert "docs/families.md" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(MonadnockError, match="known are cohere, falcon, gemma"):
        family("xyz")


@pytest.mark.parametrize(
    ("model_type", "kind"), [("bert", "is an encoder, whose attention is not causal"), ("t5", "is an encoder-decoder")]
)
def test_other_kinds_of_model_are_refused(model_type, kind):
    with pytest.raises(MonadnockError) as error:
        find_family(CONFIG_MAPPING[model_type]())
    message = str(error.value)
    assert message.startswith(f"Model type {model_type!r} {kind}") and "decoder-only" in message
    assert re.search("known are cohere, .*qwen3", message) and "\n" not in message


def test_an_encoder_is_refused_when_a_model_is_given():
    from transformers import BertConfig, BertLMHeadModel

    from monadnock.models.adapter import Adapter, Source

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertLMHeadModel(BertConfig(vocab_size=32, **sizes))
    with pytest.raises(MonadnockError, match="'bert' is an encoder"):
        Adapter(model, None, Source("mine", "object"))


def test_variants_change_only_what_they_name():
    plain = family("opt")
    changed = find_family(tiny_config("opt", do_layer_norm_before=False))
    assert set(changed.norms) == {"attn_output", "mlp_output"} and set(plain.norms) == {"attn_input", "mlp_input"}
    assert changed == Family(**{**vars(plain), "norms": changed.norms})
    assert find_family(tiny_config("opt")) == plain
    assert find_family(tiny_config("falcon", alibi=True)).rotary == "none"
    assert find_family(tiny_config("falcon")).alibi_in_mask is None
