"""Gemma 3 (text): like Gemma 2 with query and key norms in place of soft-capping, five sliding layers to one full."""

from monadnock.models.family import Family, names

FAMILY = Family(
    model_type="gemma3_text",
    norms={
        "attn_input": "input_layernorm",
        "attn_output": "post_attention_layernorm",
        "mlp_input": "pre_feedforward_layernorm",
        "mlp_output": "post_feedforward_layernorm",
        "query": "self_attn.q_norm",
        "key": "self_attn.k_norm",
    },
    norm_offset=1.0,
    handles=names("final_logit_softcapping query_pre_attn_scalar"),
)
