"""The first-sentence effect: how attention to the first token falls where the first sentence ends (wray2023)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from monadnock.data import ends_sentence
from monadnock.models import Adapter
from monadnock.reading.states import first_attention, texts_of

QUERIES = 4  # on each side of an end
SENTENCES = 3
LENGTH = 64  # tokens of a text
MOST = 48  # texts


def first_sentences(adapter: Adapter, windows: Tensor, bos: bool) -> tuple[Tensor, list[list[int]]]:
    """Cut texts that begin with a sentence out of windows, and say where their sentences end.

    Args:
        adapter: the model, whose tokenizer made the windows.
        windows: token ids, [window, seq].
        bos: whether BOS stands in front of each window; then it stands in front of each text too.

    Returns:
        Token ids [text, LENGTH], and for each text the positions of the tokens that end a sentence.
    """
    texts, ends = [], []
    for ids in windows[:, int(bos) :].tolist():
        marked = ends_sentence(texts_of(adapter.tokenizer, ids))
        start = 0
        while start < len(ids) and len(texts) < MOST:
            begin = next((place + 1 for place in range(start, len(ids)) if marked[place]), len(ids))
            body = ids[begin : begin + LENGTH - bos]
            if len(body) < LENGTH - bos:
                break
            front = [adapter.tokenizer.bos_token_id] if bos else []
            texts.append([*front, *body])
            ends.append([place + bos for place in range(len(body)) if marked[begin + place]])
            start = begin + len(body)
    return torch.tensor(texts, dtype=torch.int64).view(-1, LENGTH), ends


def sentence_effect(
    adapter: Adapter, windows: Tensor, bos: bool, step: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """Measure how attention to the first token falls where a sentence ends: rows of the table `first_sentence`.

    For the first, second and third sentence of each text that is long enough: the mean attention of the 4 queries in
    front of its end to the first token, minus that of the 4 behind it. The end itself, a full stop, is a query of its
    own kind and left out. The control is the same at the same positions of the texts in which no sentence ends nearby:
    attention to the first token falls with the position anyway.

    Args:
        adapter: the model.
        windows: token ids of a text, [window, seq].
        bos: whether BOS stands in front of each window.
        step: called after each text, `MOST` times at most.
    """
    texts, ends = first_sentences(adapter, windows, bos)
    first = []
    for ids in texts:
        first.append(first_attention(adapter, ids).mean(1))  # [layer, seq]: mean over heads
        step()
    if not first:
        return []
    masses = torch.stack(first)  # [text, layer, seq]
    masses = torch.cat([masses, masses.mean(1, keepdim=True)], 1).double()  # all layers last
    rows = []
    for number in range(SENTENCES):
        cases = [(text, places[number]) for text, places in enumerate(ends) if _counts(places, number)]
        found = [(text, *_sides(masses[text], end), _control(masses, ends, end)) for text, end in cases]
        found = [case for case in found if case[3] is not None]
        if len(found) > 1:
            rows += _rows(adapter, number + 1, found)
    return rows


def _counts(places: list[int], number: int) -> bool:
    """Say whether a sentence has enough queries, and enough follow it up to the next end and the end of the text.

    The first token is no query: it sees nothing but itself.
    """
    if number >= len(places):
        return False
    before = places[number - 1] if number else 0
    behind = min([*places[number + 1 : number + 2], LENGTH - 1])
    return places[number] - before > QUERIES and behind - places[number] >= QUERIES


def _sides(masses: Tensor, end: int) -> tuple[Tensor, Tensor]:
    """Return the mean attention of the queries in front of an end, and of those behind it, [layer] each."""
    return masses[..., end - QUERIES : end].mean(-1), masses[..., end + 1 : end + 1 + QUERIES].mean(-1)


def _control(masses: Tensor, ends: list[list[int]], end: int) -> Tensor | None:
    """Return the fall at a position, mean over the texts in which no sentence ends nearby, [layer]."""
    quiet = [text for text, places in enumerate(ends) if all(abs(place - end) > QUERIES for place in places)]
    if not quiet:
        return None
    before, after = _sides(masses[quiet], end)
    return (before - after).mean(0)


def _rows(adapter: Adapter, sentence: int, found: list[tuple[int, Tensor, Tensor, Any]]) -> list[dict[str, Any]]:
    _, before, after, control = (list(column) for column in zip(*found, strict=True))
    before, after, control = torch.stack(before), torch.stack(after), torch.stack(control)  # [case, layer + 1]
    fall = before - after
    effect = fall - control
    error = effect.std(0) / math.sqrt(len(fall))
    layers: list[int | None] = [*range(adapter.num_layers), None]
    return [
        {
            "layer": layer,
            "sentence": sentence,
            "num_texts": len(fall),
            "num_heads": adapter.num_heads * (1 if layer is not None else adapter.num_layers),
            "before": float(before[:, place].mean()),
            "after": float(after[:, place].mean()),
            "fall": float(fall[:, place].mean()),
            "control_fall": float(control[:, place].mean()),
            "effect": float(effect[:, place].mean()),
            "effect_error": float(error[place]),
        }
        for place, layer in enumerate(layers)
    ]
