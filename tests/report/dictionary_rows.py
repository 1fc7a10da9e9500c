"""Synthetic readings of dictionaries and states, with words that try to break the page."""

import math
import random

LAYERS = 6
WORDS = ("red", " the", "<img src=x onerror=\"document.title = 'owned'\">", "$$x^2$$", "\x00\u202e", "", " \n")
TEXTS = ("<i>topics</i>, 2 x 64", "other, 1 x 64")


def dictionaries():
    return [
        {
            "dictionary": name, "tied": False, "num_tokens": 100, "width": 32, "mean_norm": 1.5, "positive_share": 0.6,
            "positive_error": 0.01, "mean_similarity": 0.1, "effective_rank": 30.0, "stable_rank": math.inf,
            "own_correlation": correlation, "noise_floor": 0.4, "capacity": 6.2, "noise_largest": math.nan,
        }
        for name, correlation in (("input", 1.0), ("output", 0.2))
    ]  # fmt: skip


def singular_values():
    return [
        {"dictionary": name, "rank": rank, "value": math.nan if rank == 2 else 50.0 / rank}
        for name in ("input", "output")
        for rank in range(1, 33)
    ]


def word_similarity():
    rng = random.Random(0)
    return [
        {"dictionary": name, "word_a": a, "word_b": b, "similarity": 1.0 if a == b else rng.uniform(-1, 1)}
        for name in ("input", "output")
        for a in WORDS
        for b in WORDS
    ]


def nearest_words():
    return [
        {"relation": relation, "asked": asked, "rank": rank, "word_id": rank, "word": word, "similarity": 0.5}
        for relation in ("input", "output", "continuation")
        for asked in WORDS
        for rank, word in enumerate(WORDS, start=1)
    ]


def continuations():
    return [
        {"data": text, "pairs": 100, "rank": 40.0, "control_rank": 50.0, "top_share": 0.2, "control_share": 0.1,
         "better_share": 0.62}
        for text in TEXTS
    ]  # fmt: skip


def state_similarity():
    rng = random.Random(1)
    steps = [
        {"layer": layer, "relation": "later", "gap": gap, "mean": rng.random(), "deviation": 0.1, "predicted": 0.5}
        for gap in (1, 5)
        for layer in range(-1, LAYERS - gap)
    ]
    within = [
        {"layer": layer, "relation": name, "gap": 0, "mean": math.nan if layer == 3 else rng.random()}
        for name in ("neighbours", "next neighbours", "all pairs")
        for layer in range(-1, LAYERS)
    ]
    return [{"data": text} | row for text in TEXTS for row in steps + within]


def first_sentence():
    return [
        {
            "data": text, "layer": layer, "sentence": sentence, "num_texts": 12, "num_heads": 4 if layer else 24,
            "before": 0.4, "after": 0.3, "fall": math.inf if layer == 2 else 0.1, "effect_error": 0.02,
            "control_fall": 0.01, "effect": 0.09,
        }
        for text in TEXTS
        for sentence in (1, 2)
        for layer in (*range(LAYERS), None)
    ]  # fmt: skip


ROWS = {
    make.__name__: make
    for make in (
        dictionaries, singular_values, word_similarity, nearest_words, continuations, state_similarity, first_sentence
    )
}  # fmt: skip
