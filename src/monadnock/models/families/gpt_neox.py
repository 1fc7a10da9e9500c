"""GPT-NeoX and Pythia: attention and MLP in parallel, q, k and v of a head together, rotary on a part of each head."""

from monadnock.models.family import Family, names

FAMILY = Family(
    model_type="gpt_neox",
    q="attention.query_key_value#heads",
    k="attention.query_key_value#heads",
    v="attention.query_key_value#heads",
    o="attention.dense",
    gate=None,
    up="mlp.dense_h_to_4h",
    down="mlp.dense_4h_to_h",
    final_norm="final_layer_norm",
    attention_module="attention",
    handles=names("use_parallel_residual"),
)
