"""Falcon: three decoders under one name, some with ALiBi; the attention module computes its own probabilities."""

from monadnock.models.family import Family, names

FAMILY = Family(
    model_type="falcon",
    q="self_attention.query_key_value#heads",
    k="self_attention.query_key_value#heads",
    v="self_attention.query_key_value#heads",
    o="self_attention.dense",
    gate=None,
    up="mlp.dense_h_to_4h",
    down="mlp.dense_4h_to_h",
    norms={"attn_input": "ln_attn|input_layernorm", "mlp_input": "ln_mlp|post_attention_layernorm?"},
    final_norm="ln_f",
    attention="returned",
    attention_module="self_attention",
    handles=names(
        """
        activation alibi bias ffn_hidden_size multi_query new_decoder_architecture num_kv_heads
        num_ln_in_parallel_attn parallel_attn
        """
    ),
    variants=(("alibi", True, {"rotary": "none", "alibi_in_mask": "alibi"}),),
)
