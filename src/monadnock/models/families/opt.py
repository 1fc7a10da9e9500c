"""OPT: no gate, learned positions; the 350m model has its norms behind the residual additions, none at the end."""

from monadnock.models.family import Family, names

FAMILY = Family(
    model_type="opt",
    o="self_attn.out_proj",
    gate=None,
    up="fc1",
    down="fc2",
    norms={"attn_input": "self_attn_layer_norm", "mlp_input": "final_layer_norm"},
    final_norm="final_layer_norm?",
    rotary="none",
    positions="embed_positions",
    handles=names(
        """
        activation_function do_layer_norm_before dropout enable_bias ffn_dim init_std
        layer_norm_elementwise_affine layerdrop word_embed_proj_dim
        """
    ),
    variants=(
        (
            "do_layer_norm_before",
            False,
            {"norms": {"attn_output": "self_attn_layer_norm", "mlp_output": "final_layer_norm"}},
        ),
    ),
)
