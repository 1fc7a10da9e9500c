"""Put tokens in front of every text, as CushionCache and PrefixQuant do, so that sinks and outliers move there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from monadnock.errors import MonadnockError
from monadnock.interventions.cache import cache_of
from monadnock.models import Adapter


@contextmanager
def prefix_tokens(adapter: Adapter, ids: Sequence[int]) -> Iterator[None]:
    """Put tokens in front of every input inside the block; logits are those of the text's own positions.

    It is what a cache filled with the prefix gives, for forward passes and for generation. States that are observed
    meanwhile have the prefix at their first positions. Blocks nest: the outer prefix stands first.

    Args:
        adapter: the model.
        ids: token ids of the prefix.

    Raises:
        MonadnockError: on an id that the model has no embedding for, or an input that is not token ids.

    Example:
        >>> with prefix_tokens(adapter, [adapter.tokenizer.bos_token_id]):  # doctest: +SKIP
        ...     logits = adapter.forward(ids)
    """
    size = adapter.model.get_input_embeddings().weight.shape[0]
    if wrong := [token for token in ids if not 0 <= token < size]:
        raise MonadnockError(f"Token {wrong[0]} was asked as a prefix, but {adapter.source.id} has {size} embeddings.")
    prefix, count = torch.tensor(list(ids), dtype=torch.int64), len(ids)

    def before(_module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        given: Tensor | None = args[0] if args else kwargs.get("input_ids")
        if len(args) > 1 or given is None:
            raise MonadnockError("A prefix can be put in front of token ids only, given alone or by name.")
        changed = dict(kwargs)
        cache = cache_of(kwargs)
        if cache is None or cache.get_seq_length() == 0:
            changed["input_ids"] = torch.cat([prefix.to(given.device).expand(len(given), -1), given], dim=1)
            if isinstance(keep := kwargs.get("logits_to_keep"), Tensor):
                changed["logits_to_keep"] = keep + count
            elif not keep:
                changed["logits_to_keep"] = given.shape[1]
        else:
            changed["input_ids"] = given
        if (mask := kwargs.get("attention_mask")) is not None:  # [batch, seq so far]
            changed["attention_mask"] = torch.cat([mask.new_ones(len(mask), count), mask], dim=1)
        for name in ("position_ids", "cache_position"):
            if (positions := kwargs.get(name)) is not None:
                changed[name] = positions + count
                if changed["input_ids"] is not given:
                    front = torch.arange(count, device=positions.device, dtype=positions.dtype)
                    changed[name] = torch.cat([front.expand(*positions.shape[:-1], -1), changed[name]], dim=-1)
        return (), changed

    handle = adapter.model.register_forward_pre_hook(before, with_kwargs=True, prepend=True)
    try:
        yield
    finally:
        handle.remove()
