"""What an attention variant adds to an attention module: its parameters, and the scale of what a query gets."""

import torch
from torch import Tensor, nn

VARIANTS = {
    "default": "softmax(QK)V",
    "fixed_bias": "a vector v' of each head is added to what it reads",
    "context_bias": "v' is added times the probability of a key k'; the softmax over tokens is without it (an2025)",
    "attention_bias": "one more key k' with a value v', which every query sees (an2025)",
    "context_scale": "what a head reads is scaled by 2 sigmoid(Linear(x)), a number for each head and query (an2025)",
    "sigmoid": "sigmoid(QK - log T)V, each key on its own (an2025, appendix D.1)",
    "learned_sink": "one more logit of each head, that is no token (gpt-oss)",
    "gate": "what a head reads is multiplied by sigmoid(Linear(x)), element by element (Qwen3-Next)",
    "softmax_plus_one": "one more logit, that is no token and always 0",
}
_KEYED = ("context_bias", "attention_bias")


class Variant(nn.Module):
    """The parameters of one attention module's variant.

    Attributes:
        name: one of `VARIANTS`.
        key: k', [kv_head, d_head], of context_bias and attention_bias.
        value: v', [kv_head, d_head] of these two, [head, d_head] of fixed_bias.
        sink: the logit of learned_sink, [head].
        weight, bias: of the linear map that context_scale (to one number for each head) or gate (to one for each head
            and dimension) applies to the state that attention reads.

    Args:
        name: which one.
        width: of the states, d_model.
        heads: query heads.
        groups: key-value heads.
        size: d_head.
        std: standard deviation with which k', v' and the gate begin; the paper has 0.02.
    """

    def __init__(self, name: str, width: int, heads: int, groups: int, size: int, std: float):
        super().__init__()
        self.name, self.heads, self.std = name, heads, std
        self.register_buffer(f"is_{name}", torch.ones(1))  # so that a checkpoint of another variant lacks a key
        if name in _KEYED:
            self.key = nn.Parameter(torch.empty(groups, size))
        if name in (*_KEYED, "fixed_bias"):
            self.value = nn.Parameter(torch.empty(heads if name == "fixed_bias" else groups, size))
        if name == "learned_sink":
            self.sink = nn.Parameter(torch.empty(heads))
        if name in ("context_scale", "gate"):
            rows = heads if name == "context_scale" else heads * size
            self.weight = nn.Parameter(torch.empty(rows, width))
            self.bias = nn.Parameter(torch.empty(rows))
        self.begin()

    def begin(self) -> None:
        """Give the parameters their first values.

        k', v' and the gate are drawn; the logit is 0, and the scale is 1 for every query, as in the default.
        """
        for name, parameter in self.named_parameters():
            if name in ("key", "value") or (name == "weight" and self.name == "gate"):
                nn.init.normal_(parameter, std=self.std)
            else:
                nn.init.zeros_(parameter)

    def scale(self, states: Tensor) -> Tensor | None:
        """Return by what each head's output is multiplied, [batch, query, head, 1 or d_head]; None for nothing.

        Args:
            states: what attention reads, behind the norm, [batch, query, d_model].
        """
        if self.name == "context_scale":
            return 2 * torch.sigmoid(nn.functional.linear(states, self.weight, self.bias))[..., None]
        if self.name == "gate":
            return torch.sigmoid(nn.functional.linear(states, self.weight, self.bias)).unflatten(-1, (self.heads, -1))
        return None
