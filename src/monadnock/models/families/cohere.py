"""Cohere's Command R: attention and MLP in parallel behind one norm, rotary pairs next to each other."""

from monadnock.models.family import Family, names

FAMILY = Family(
    model_type="cohere",
    norms={"attn_input": "input_layernorm", "query": "self_attn.q_norm?", "key": "self_attn.k_norm?"},
    rotary="interleaved",
    handles=names("logit_scale use_qk_norm"),
)
