"""GPT-2: weights stored [in, out], one fused c_attn, no gate, learned positions."""

from monadnock.models.family import Family, names

FAMILY = Family(
    model_type="gpt2",
    q="attn.c_attn#rows",
    k="attn.c_attn#rows",
    v="attn.c_attn#rows",
    o="attn.c_proj",
    gate=None,
    up="mlp.c_fc",
    down="mlp.c_proj",
    norms={"attn_input": "ln_1", "mlp_input": "ln_2"},
    final_norm="ln_f",
    transposed=frozenset({"q", "k", "v", "o", "up", "down"}),
    rotary="none",
    attention_module="attn",
    positions="wpe",
    handles=names(
        """
        activation_function n_inner reorder_and_upcast_attn scale_attn_by_inverse_layer_idx scale_attn_weights
        summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
        """
    ),
)
