"""MPT: one fused Wqkv, ALiBi, no biases at all; the attention module computes its own probabilities."""

from monadnock.models.family import Family, names

FAMILY = Family(
    model_type="mpt",
    q="attn.Wqkv#rows",
    k="attn.Wqkv#rows",
    v="attn.Wqkv#rows",
    o="attn.out_proj",
    gate=None,
    up="ffn.up_proj",
    down="ffn.down_proj",
    norms={"attn_input": "norm_1", "mlp_input": "norm_2"},
    final_norm="norm_f",
    rotary="none",
    attention="returned",
    attention_module="attn",
    handles=names(
        """
        attn_config.attn_impl attn_config.clip_qkv attn_config.softmax_scale emb_pdrop embedding_fraction
        init_device learned_pos_emb max_seq_len
        """
    ),
)
