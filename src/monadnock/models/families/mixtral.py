"""Mixtral: the experts of a layer in one [expert, out, in] parameter, gate and up stacked."""

from monadnock.models.family import Family, names

FAMILY = Family(
    model_type="mixtral",
    gate="mlp.experts.gate_up_proj#halves",
    up="mlp.experts.gate_up_proj#halves",
    down="mlp.experts.down_proj",
    router="mlp.gate",
    experts="mlp.experts",
    handles=names(
        """
        num_experts_per_tok num_local_experts output_router_logits router_aux_loss_coef router_jitter_noise
        """
    ),
)
