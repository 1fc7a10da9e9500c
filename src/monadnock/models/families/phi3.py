"""Phi-3: q, k and v in one linear layer, gate and up in another; long-context models swap their rotary frequencies."""

from monadnock.models.family import Family, names

FAMILY = Family(
    model_type="phi3",
    q="self_attn.qkv_proj#rows",
    k="self_attn.qkv_proj#rows",
    v="self_attn.qkv_proj#rows",
    gate="mlp.gate_up_proj#halves",
    up="mlp.gate_up_proj#halves",
    handles=names("original_max_position_embeddings"),
)
