"""What a prompt leaves in the model: the state behind every layer, and how much attention its first token gets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monadnock.errors import MonadnockError
from monadnock.models import Adapter, AttentionBlock
from monadnock.models.observe import States, Watcher
from monadnock.models.start import run_layers
from monadnock.sites import Site, Stream

LONGEST = 256  # tokens: every position is read at every layer


@dataclass(frozen=True)
class Seen:
    """What one prompt gave.

    Attributes:
        ids: token ids, [seq].
        states: what enters the first layer and stands behind each, [layer + 1, seq, d_model] (float32, CPU).
        first: attention that the first token gets, A[i, 0], [layer, head, seq] (float32, CPU).
    """

    ids: Tensor
    states: Tensor
    first: Tensor


def prompt_ids(adapter: Adapter, prompt: str, bos: bool | None) -> tuple[Tensor, bool]:
    """Return the token ids [seq] of a prompt, and whether BOS stands in front.

    Args:
        adapter: the model.
        prompt: a text.
        bos: put BOS in front; by default if the tokenizer has one.

    Raises:
        MonadnockError: if the prompt has no token, too many, or there is no BOS to put in front.
    """
    tokenizer = adapter.tokenizer
    try:
        ids = tokenizer.encode(prompt, add_special_tokens=False)
    except (UnicodeError, TypeError, ValueError) as error:
        raise MonadnockError(f"The prompt cannot be read as text ({error}); give it in Unicode.") from error
    if not ids:
        raise MonadnockError("The prompt is empty; give a text of one word at least.")
    if bos and tokenizer.bos_token_id is None:
        raise MonadnockError(f"BOS was asked for, but the tokenizer of {adapter.source.id} has none.")
    front = tokenizer.bos_token_id is not None if bos is None else bos
    ids = [tokenizer.bos_token_id, *ids] if front else ids
    for what, most in (("a lens reads at most", LONGEST), ("the model sees at most", adapter.context_length)):
        if most is not None and len(ids) > most:
            raise MonadnockError(f"The prompt has {len(ids)} tokens, {what} {most}; give a shorter one.")
    return torch.tensor(ids), front


def texts_of(tokenizer: Any, ids: list[int]) -> list[str]:
    """Return the text of each token as it stands in a text, so that they make up the text when they are joined.

    A token alone loses its leading blank in tokenizers of the SentencePiece kind; behind another it keeps it.
    """
    alone = [tokenizer.decode([each]) for each in ids]
    texts = alone[:1]
    for place in range(1, len(ids)):
        both = tokenizer.decode(ids[place - 1 : place + 1])
        front = alone[place - 1]
        texts.append(both[len(front) :] if both.startswith(front) else alone[place])
    return texts


def see_prompt(adapter: Adapter, ids: Tensor) -> Seen:
    """Run a prompt once and keep its states, and the attention that its first token gets.

    Example:
        >>> seen = see_prompt(adapter, ids)  # doctest: +SKIP
        >>> seen.states.shape  # doctest: +SKIP
        torch.Size([31, 35, 576])
    """
    states = torch.zeros(adapter.num_layers + 1, len(ids), adapter.hidden_size)
    sites = {Site(Stream.RESIDUAL, layer): _keep_state(states[layer + 1]) for layer in range(-1, adapter.num_layers)}
    return Seen(ids, states, first_attention(adapter, ids, sites))


def first_attention(adapter: Adapter, ids: Tensor, others: Mapping[Site, Watcher] | None = None) -> Tensor:
    """Run a short text once and return the attention that its first token gets, A[i, 0], [layer, head, seq].

    Args:
        adapter: the model.
        ids: token ids, [seq].
        others: what else is shown states in the same pass.
    """
    first = torch.zeros(adapter.num_layers, adapter.num_heads, len(ids))
    sites = {Site(Stream.ATTN_PROBS, layer): _keep_first(first[layer]) for layer in range(adapter.num_layers)}
    run_layers(adapter, ids, sites | dict(others or {}))
    return first


def _keep_state(place: Tensor) -> Watcher:
    def keep(batch: States) -> None:
        place.copy_(batch.values)

    return keep


def _keep_first(place: Tensor) -> Watcher:
    def keep(block: Any) -> None:
        if isinstance(block, AttentionBlock) and block.first_key == 0:
            queries = slice(block.first_query, block.first_query + block.probs.shape[1])
            place[:, queries].copy_(block.probs[:, :, 0])

    return keep
