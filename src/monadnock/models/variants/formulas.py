"""The attention variants as formulas: plainly, as they are observed, and fused, as they are trained."""

import math
from typing import Any

import torch
from torch import Tensor

from monadnock.models.variants.parameters import Variant

NAME = "monadnock_variant"  # under which transformers knows the fused function
_PAD = 8  # dimensions that fused kernels want heads to be a multiple of


def eager_attention_forward(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    output_scale: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Compute a variant plainly, with all scores at once; observed models run this.

    Args:
        module: the attention module, with its `variant`.
        query: [batch, head, query, d_head].
        key: [batch, kv_head, key, d_head].
        value: [batch, kv_head, key, d_head].
        attention_mask: added to the scores.
        scaling: 1 / sqrt(d_head).
        dropout: of the probabilities.
        output_scale: see `Variant.scale`.

    Returns:
        The output [batch, query, head, d_head], and what each key gets [batch, head, query, key]; these do not sum to
        one where the variant gives a part to no token.
    """
    variant: Variant = module.variant
    repeats = query.shape[1] // key.shape[1]
    keys, values = (each.repeat_interleave(repeats, dim=1) for each in (key, value))
    scores = query @ keys.transpose(2, 3) * scaling
    blocked = torch.zeros(1, device=scores.device) if attention_mask is None else attention_mask
    scores = scores + blocked
    extra = _extra_logit(variant, query, scaling)
    wide = torch.promote_types(query.dtype, torch.float32)
    if variant.name == "sigmoid":
        probs = torch.sigmoid(scores - math.log(module.config.max_position_embeddings))
        taken = None
    else:
        joined = scores if extra is None else torch.cat([scores, extra], dim=-1)
        both = torch.softmax(joined, dim=-1, dtype=wide).to(query.dtype)
        probs, taken = both[..., : scores.shape[-1]], None if extra is None else both[..., -1:]
    if variant.name == "context_bias":
        probs = torch.softmax(scores, dim=-1, dtype=wide).to(query.dtype)
    output = torch.nn.functional.dropout(probs, p=dropout, training=module.training) @ values
    if variant.name == "fixed_bias":
        output = output + variant.value[:, None]
    elif variant.name in ("context_bias", "attention_bias"):
        assert taken is not None
        output = output + taken * _per_head(variant.value, query)[:, None]
    output = output.transpose(1, 2)
    return output if output_scale is None else output * output_scale, probs


def _per_head(parameter: Tensor, query: Tensor) -> Tensor:
    """Return k' or v' for each query head, [head, d_head]."""
    return parameter.repeat_interleave(query.shape[1] // parameter.shape[0], dim=0)


def _extra_logit(variant: Variant, query: Tensor, scaling: float) -> Tensor | None:
    """Return the logit of what is no token, [batch, head, query, 1]."""
    if variant.name in ("context_bias", "attention_bias"):
        return (query * _per_head(variant.key, query)[:, None]).sum(-1, keepdim=True) * scaling
    if variant.name == "learned_sink":
        return variant.sink[:, None, None].expand(*query.shape[:3], 1).to(query.dtype)
    if variant.name == "softmax_plus_one":
        return query.new_zeros(*query.shape[:3], 1)
    return None


def fused_attention_forward(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    output_scale: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute a variant by PyTorch's fused attention wherever its formula allows; as `eager_attention_forward`.

    What is no token is one more key, in front of all others, that every query sees. The scores of sigmoid attention
    are not fused.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    variant: Variant = module.variant
    if attention_mask is None and 1 < query.shape[2] < key.shape[2]:  # a static cache, empty behind the prompt
        key, value = key[:, :, : query.shape[2]], value[:, :, : query.shape[2]]
    if variant.name == "sigmoid":
        mask = _additive(attention_mask, query, key)
        output, _ = eager_attention_forward(module, query, key, value, mask, scaling, dropout, output_scale)
        return output, None

    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        given = kwargs | {"dropout": dropout, "scaling": scaling}
        return sdpa_attention_forward(module, query, key, value, mask, **given)[0]

    if variant.name in ("default", "fixed_bias", "context_scale", "gate"):
        output = attend(query, key, value, attention_mask)
        if variant.name == "fixed_bias":
            output = output + variant.value
    else:
        output = _with_key(variant, query, key, value, attention_mask, scaling, attend)
    return output if output_scale is None else output * output_scale, None


def _with_key(
    variant: Variant, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, attend: Any
) -> Tensor:
    """Attend with one more key; where the variant needs more dimensions, heads get them, filled up with zeros."""
    batch, groups, _, size = key.shape
    extra_key, extra_value = key.new_zeros(groups, size), value.new_zeros(groups, size)
    if variant.name in ("attention_bias", "context_bias"):
        extra_key = variant.key.to(key.dtype)
    if variant.name == "attention_bias":
        extra_value = variant.value.to(value.dtype)
    if variant.name == "learned_sink":  # the logit is the product of one more dimension
        query, key, extra_key = (torch.nn.functional.pad(each, (0, _PAD)) for each in (query, key, extra_key))
        extra_value, value = (torch.nn.functional.pad(each, (0, _PAD)) for each in (extra_value, value))
        logit = torch.nn.functional.pad((variant.sink / scaling)[:, None], (size, _PAD - 1))
        query, extra_key = query + logit[:, None].to(query.dtype), extra_key + _unit(extra_key, size)
    keys = torch.cat([extra_key.expand(batch, -1, -1)[:, :, None], key], dim=2)
    if variant.name == "context_bias":  # the share of k' is read as a value of one; tokens have a softmax of their own
        share = value.new_zeros(batch, groups, 1, _PAD) + _unit(value.new_zeros(_PAD), 0)
        shares = torch.cat([share, value.new_zeros(*value.shape[:3], _PAD)], dim=2)
        taken = attend(query, keys, shares, _seen_by_all(mask, query, key))[..., :1]
        return attend(query, key, value, mask) + taken * _per_head(variant.value.to(query.dtype), query)
    values = torch.cat([extra_value.expand(batch, -1, -1)[:, :, None], value], dim=2)
    output = attend(query, keys, values, _seen_by_all(mask, query, key))
    return output[..., :size]


def _unit(like: Tensor, place: int) -> Tensor:
    """Return a vector with a one at a place of the last dimension."""
    unit = like.new_zeros(like.shape[-1])
    unit[place] = 1
    return unit


def _causal(query: Tensor, key: Tensor) -> Tensor:
    """Return which keys each query sees, the last query all of them, [query, key]."""
    asked, there = query.shape[2], key.shape[2]
    return torch.ones(asked, there, dtype=torch.bool, device=query.device).tril(there - asked)


def _seen_by_all(mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor:
    """Return a mask with one more key in front, which every query sees."""
    mask = _causal(query, key)[None, None] if mask is None else mask[..., : key.shape[2]]
    return torch.nn.functional.pad(mask, (1, 0), value=1 if mask.dtype == torch.bool else 0)


def _additive(mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor:
    """Return a mask that is added to scores."""
    mask = _causal(query, key)[None, None] if mask is None else mask[..., : key.shape[2]]
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(~mask, -torch.inf)
