"""Synthetic readings in words: a lens on two prompts, weights of heads and outliers, attention to a first token."""

import math
import random

from tests.report.study_rows import PROMPTS, TOKENS

LAYERS, HEADS = 6, 4
SETTINGS = (
    {"prompt": PROMPTS[0], "bos": True, "rows": "normalised", "words": "all"},
    {"prompt": PROMPTS[1], "bos": False, "rows": "raw", "words": "prompt"},
)


def lens():
    rng = random.Random(0)
    return [
        setting | {
            "position": place, "token_id": place, "token": TOKENS[place % len(TOKENS)], "dictionary": name,
            "layer": layer, "rank": rank, "word_id": word, "word": TOKENS[word % len(TOKENS)],
            "amplitude": math.nan if (layer, rank) == (2, 2) else rng.random() / rank,
            "noise": 0.3 if setting["rows"] == "normalised" else 0.0,
        }
        for setting in SETTINGS
        for name in ("input", "output", "middle")
        for place in range(6)
        for layer in range(-1, LAYERS)
        for rank, word in enumerate(rng.sample(range(20), 5), 1)
    ]  # fmt: skip


def first_token():
    rng = random.Random(1)
    return [
        {
            "prompt": setting["prompt"], "bos": setting["bos"], "layer": layer, "head": head, "position": place,
            "token_id": place, "token": TOKENS[place % len(TOKENS)], "ends_sentence": place in (3, 5),
            "mass": 1.0 if place == 0 else math.inf if (layer, place) == (1, 1) else rng.random(),
        }
        for setting in SETTINGS
        for layer in range(LAYERS)
        for head in range(HEADS)
        for place in range(6)
    ]  # fmt: skip


def circuits():
    return [
        {
            "layer": layer, "head": head, "circuit": name, "singular_value": 4.0 - head, "effective_rank": math.nan,
            "offset_mass": 0.58 if head == 1 else 0.1, "offset": 1, "position_driven": head == 1,
        }
        for layer in range(LAYERS)
        for name in ("qk", "ov")
        for head in range(HEADS)
    ]  # fmt: skip


def vector(kind, layer, head, index, side, strength=2.0, dictionary="input"):
    """Return the rows of one vector, words at both of its ends."""
    return [
        {
            "kind": kind, "layer": layer, "head": head, "index": index, "side": side, "strength": strength,
            "dictionary": dictionary, "sign": sign, "rank": rank, "word_id": rank,
            "word": TOKENS[(rank + index) % len(TOKENS)], "amplitude": sign * 0.6 / rank,
        }
        for sign in (1, -1)
        for rank in range(1, 9)
    ]  # fmt: skip


def readings():
    found = []
    for layer in range(LAYERS):
        for head in range(HEADS):
            kinds = (("ov", ("reads", "writes")), ("qk", ("query", "key")))[: 1 if head == 1 else 2]
            for kind, sides in kinds:
                found += [
                    row for i in range(3) for side in sides for row in vector(kind, layer, head, i, side, 3.0 - i)
                ]
    for kind, side in (("q_row", "query"), ("k_row", "key")):
        found += [row for index in range(6) for row in vector(kind, 0, 0, index, side, float(index))]
    found += vector("feature", 2, None, 3, "writes", 900.0, "output") + vector("feature", 2, None, 3, "reads", 900.0)
    found += vector("up_row", 2, None, 7, "reads") + vector("gate_row", 2, None, 7, "reads", math.nan)
    return found + vector("down_column", 2, None, 7, "writes", dictionary="output")


ROWS = {"lens": lens, "first_token": first_token, "circuits": circuits, "readings": readings}
