"""What a model writes on: greedy text, with nothing drawn, so that two models can be compared."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from monadnock.models import Adapter

PROMPTS = (
    "The capital of France is",
    "Once upon a time, there was a little",
    "To sort a list of numbers in Python,",
)
NEW_TOKENS = 20


def generate(
    adapter: Adapter, prompts: Sequence[str] = PROMPTS, *, tokens: int = NEW_TOKENS, bos: bool | None = None
) -> list[list[int]]:
    """Return the token ids with which the model goes on from each prompt, always the most probable one.

    Args:
        adapter: the model with its tokenizer.
        prompts: the texts to go on from, one at a time.
        tokens: how many tokens to write at most; the model may end earlier.
        bos: put the BOS token in front; by default if the tokenizer has one.

    Example:
        >>> adapter.tokenizer.decode(generate(adapter, ["The capital of France is"])[0])  # doctest: +SKIP
        ' Paris.'
    """
    tokenizer = adapter.tokenizer
    bos = tokenizer.bos_token_id is not None if bos is None else bos
    written = []
    for prompt in prompts:
        ids: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        written.append(go_on(adapter, [tokenizer.bos_token_id, *ids] if bos else ids, tokens))
    return written


def go_on(adapter: Adapter, given: Sequence[int], tokens: int) -> list[int]:
    """Return the token ids with which the model goes on, as many as fit into its context, always the most probable."""
    limit = adapter.context_length
    room = tokens if limit is None else max(min(tokens, limit - len(given)), 0)
    return _continue(adapter, torch.tensor([list(given)], device=adapter.device), room) if room else []


def _continue(adapter: Adapter, ids: Tensor, tokens: int) -> list[int]:
    ends = adapter.model.generation_config.eos_token_id
    end = ends[0] if isinstance(ends, list) else ends
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # settings for sampling, in a checkpoint that is not sampled from here
        output = adapter.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=tokens,
            pad_token_id=0 if end is None else end,
        )
    return output[0, ids.shape[1] :].tolist()


def same_start(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many first tokens two continuations share.

    Example:
        >>> same_start([4, 5, 6], [4, 5, 7])
        2
    """
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
