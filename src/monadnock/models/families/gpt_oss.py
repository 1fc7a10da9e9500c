"""gpt-oss: experts stored [expert, in, out], gate and up alternating; learned sinks; every other layer slides."""

from monadnock.models.family import Family, names

FAMILY = Family(
    model_type="gpt_oss",
    gate="mlp.experts.gate_up_proj#pairs",
    up="mlp.experts.gate_up_proj#pairs",
    down="mlp.experts.down_proj",
    transposed=frozenset({"gate", "up", "down"}),
    router="mlp.router",
    experts="mlp.experts",
    handles=names(
        """
        num_experts_per_tok num_local_experts output_router_logits router_aux_loss_coef swiglu_alpha swiglu_limit
        """
    ),
)
