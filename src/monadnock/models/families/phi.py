"""Phi 1, 1.5 and 2: attention and MLP in parallel behind one norm, rotary on a part of each head, biases everywhere."""

from monadnock.models.family import Family, names

FAMILY = Family(
    model_type="phi",
    o="self_attn.dense",
    gate=None,
    up="mlp.fc1",
    down="mlp.fc2",
    norms={"attn_input": "input_layernorm", "query": "self_attn.q_layernorm?", "key": "self_attn.k_layernorm?"},
    final_norm="final_layernorm",
    handles=names("qk_layernorm"),
)
