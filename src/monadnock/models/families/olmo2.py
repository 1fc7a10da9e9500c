"""OLMo 2: norms only behind attention and MLP, and on all queries and all keys of a layer together."""

from monadnock.models.family import Family

FAMILY = Family(
    model_type="olmo2",
    norms={
        "attn_output": "post_attention_layernorm",
        "mlp_output": "post_feedforward_layernorm",
        "query": "self_attn.q_norm",
        "key": "self_attn.k_norm",
    },
)
