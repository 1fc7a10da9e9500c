"""Gemma 2: norms in front of and behind attention and MLP, soft-capped scores and logits, every other layer slides."""

from monadnock.models.family import Family, names

FAMILY = Family(
    model_type="gemma2",
    norms={
        "attn_input": "input_layernorm",
        "attn_output": "post_attention_layernorm",
        "mlp_input": "pre_feedforward_layernorm",
        "mlp_output": "post_feedforward_layernorm",
    },
    norm_offset=1.0,
    handles=names("attn_logit_softcapping final_logit_softcapping query_pre_attn_scalar"),
)
