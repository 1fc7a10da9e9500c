"""Mixtral: the experts of a layer in one [expert, out, in] parameter, gate and up stacked."""

from monadnock.models.family import Family

FAMILY = Family(
    model_type="mixtral",
    gate="mlp.experts.gate_up_proj#halves",
    up="mlp.experts.gate_up_proj#halves",
    down="mlp.experts.down_proj",
    router="mlp.gate",
    experts="mlp.experts",
    handles=frozenset({"num_local_experts", "num_experts_per_tok", "router_jitter_noise"}),
)
