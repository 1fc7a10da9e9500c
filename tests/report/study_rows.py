"""Synthetic studies: BOS in places, texts that grow, and one text, with token texts that try to break the page."""

import math
import random

LAYERS, HEADS = 6, 4
PROMPTS = ("Summer is warm.", "<b>Winter</b>\n</script> $$x$$ \u202e")
TOKENS = ("<s>", " the", "<img src=x onerror=\"document.title = 'owned'\">", "$$x^2$$", "\x00\u202e", "", " \n", None)


def _inputs():
    """Yield (study, input, prompt, number of tokens, position of BOS)."""
    for prompt in PROMPTS:
        yield "bos", "no BOS", prompt, 5, None
        for where, place in (("at the start", 0), ("in the middle", 3), ("at the end", 5)):
            yield "bos", f"BOS {where}", prompt, 6, place
    for name, size in (("1 sentence", 4), ("8 sentences", 30)):
        yield "length", f"{name}, no BOS", name, size, None
        yield "length", f"{name}, BOS", name, size + 1, 0
    yield "attention", "BOS", PROMPTS[0], 6, 0


def inputs():
    rng = random.Random(0)
    return [
        {
            "study": study, "input": name, "prompt": prompt, "layer": layer, "position": place, "token_id": place,
            "token": TOKENS[place % len(TOKENS)], "token_class": "other", "inserted": place == bos,
            "top1": math.nan if (layer, place) == (1, 1) else top, "feature": 3,
            "ratio": math.inf if top > 800 else top, "rms": 1.0, "massive": top > 800,
            "attention": rng.random(), "uniform": 0.3, "num_sink_heads": rng.randrange(HEADS),
        }
        for study, name, prompt, size, bos in _inputs()
        for layer in range(LAYERS)
        for place in range(size)
        for top in [900.0 * (1 + rng.random()) if place == bos and layer > 1 else 3.0 + rng.random()]
    ]  # fmt: skip


def maps():
    return [
        {
            "study": study, "input": name, "prompt": prompt, "layer": layer, "head": head, "query": query, "key": key,
            "mass": math.inf if (query, key) == (2, 1) else 1 / (query + 1),
        }
        for study, name, prompt, size, _ in _inputs()
        for layer, head in [(0, None), (3, None), *([(3, 2)] if study == "attention" else [])]
        for query in range(size)
        for key in range(query + 1)
    ]  # fmt: skip
