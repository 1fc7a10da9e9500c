"""Reach the down projection's input inside a mixture-of-experts layer, where no module sits."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NAME = "monadnock"

# experts module -> watcher(x_down [rows, d_mlp], position [rows], expert [rows])
Watcher = Callable[[Tensor, Tensor, Tensor], None]
watchers: "weakref.WeakKeyDictionary[nn.Module, Watcher]" = weakref.WeakKeyDictionary()


def register() -> None:
    """Make the observed experts function known to transformers, under the name `monadnock`."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(NAME, observed_experts)


def observed_experts(module: Any, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """Compute a layer of experts one expert at a time, and show the watcher all intermediate states at once.

    Args:
        module: a transformers experts module with `gate_up_proj`, `down_proj` and its own `_apply_gate`.
        hidden: [tokens, d_model].
        top_k_index: experts of each token, [tokens, k].
        top_k_weights: their weights, [tokens, k].

    Returns:
        The weighted sum of the experts' outputs, [tokens, d_model].
    """
    watch = watchers.get(module)
    shown: list[tuple[Tensor, Tensor, Tensor]] = []
    output = torch.zeros_like(hidden, dtype=torch.promote_types(hidden.dtype, torch.float32))

    def linear(x: Tensor, name: str, expert: int) -> Tensor:
        weight = getattr(module, name)[expert]
        bias = getattr(module, f"{name}_bias")[expert] if module.has_bias else None
        return F.linear(x, weight.t() if module.is_transposed else weight, bias)

    for expert in top_k_index.unique().tolist():
        token, slot = torch.where(top_k_index == expert)
        if module.has_gate:
            state = module._apply_gate(linear(hidden[token], "gate_up_proj", expert))  # [rows, d_mlp]
        else:
            state = module.act_fn(linear(hidden[token], "up_proj", expert))
        if watch is not None:
            shown.append((state, token, torch.full_like(token, expert)))
        out = linear(state, "down_proj", expert)
        if getattr(module, "has_post_expert_norm", False):
            out = module.post_expert_norm(out)
        output.index_add_(0, token, (out * top_k_weights[token, slot, None]).to(output.dtype))
    if watch is not None:
        watch(*(torch.cat(parts) for parts in zip(*shown, strict=True)))
    return output.to(hidden.dtype)
