"""Qwen3: a norm on every head's queries and keys, shared by the heads of a layer; some layers may slide."""

from monadnock.models.family import Family

FAMILY = Family(
    model_type="qwen3",
    norms={
        "attn_input": "input_layernorm",
        "mlp_input": "post_attention_layernorm",
        "query": "self_attn.q_norm",
        "key": "self_attn.k_norm",
    },
)
