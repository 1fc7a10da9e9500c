"""Tiny random models of every family, so that tests need no checkpoint.

Nothing in them is trivially 0 or 1: norms, biases and learned sinks are random, queries see different windows, and
the weights are large enough for attention to be far from uniform.
"""

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from monadnock.models import variants

_TOKENS = {"vocab_size": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
_SLIDING = {"sliding_window": 8}
_QWEN = _LLAMA | _SLIDING | {"use_sliding_window": True, "max_window_layers": 1}
_GEMMA = _LLAMA | {"head_dim": 16}
_ALTERNATING = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}

variants.register()
_TINY: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "mistral": _LLAMA | _SLIDING,
    "mixtral": _LLAMA | _EXPERTS,
    "qwen2": _QWEN,
    "qwen3": _QWEN | {"head_dim": 16},
    "gemma": _GEMMA,
    "gemma2": _GEMMA
    | _SLIDING
    | _ALTERNATING
    | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 12},
    "gemma3_text": _GEMMA | _SLIDING | _ALTERNATING | {"query_pre_attn_scalar": 12},
    "cohere": _LLAMA | {"logit_scale": 0.5},
    "phi": _LLAMA | {"partial_rotary_factor": 0.5},
    "phi3": _LLAMA | _SLIDING,
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256},
    "monadnock_gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256},
    "opt": {
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "word_embed_proj_dim": 24,
        "max_position_embeddings": 256,
    },
    "gpt_neox": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "rotary_pct": 0.5,
    },
    "falcon": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_hidden_size": 48},
    "monadnock_llama": _LLAMA,
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 3, "max_seq_len": 256},
    "olmo2": _LLAMA,
    "gpt_oss": _GEMMA
    | _SLIDING
    | _ALTERNATING
    | _EXPERTS
    | {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 150000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
}


def tiny_config(model_type: str, **changes: Any) -> Any:
    """Return a tiny config of a family.

    Args:
        model_type: a registered family.
        **changes: config attributes to set away from the tiny model's own.
    """
    return CONFIG_MAPPING[model_type](**_TOKENS | _TINY[model_type] | changes)


def tiny_model(model_type: str, seed: int = 0, **changes: Any) -> Any:
    """Return a tiny random causal language model in float32 and evaluation mode.

    Args:
        model_type: a registered family.
        seed: the weights depend on this only.
        **changes: config attributes to set away from the tiny model's own.
    """
    config = tiny_config(model_type, **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=random)
            if parameter.dim() == 1:  # norms keep their centre, 0 or 1
                parameter.add_(0.3 * noise)
            else:
                parameter.copy_(noise * (0.25 if parameter.shape[0] > 100 else 0.2))
    return model.eval()
