"""Synthetic pretrainings, with texts that try to break a page, and numbers that are none."""

import math

VARIANTS = ("default", "sigmoid", "</script><b>")
NAMES = [f"llama {variant}, seed {seed}" for variant in VARIANTS for seed in (0, 1)]


def pretrainings():
    return [
        {"name": name, "architecture": "llama", "variant": VARIANTS[place // 2], "seed": place % 2,
         "recipe": "small 01", "data": "<i>backcopy</i>", "steps": 20, "parameters": 9,
         "added": 8 * (place // 2), "loss": 2.0 + place,
         "perplexity": 7.4, "absmax": 7.5, "pruned": math.inf if place == 4 else 9.0,
         "steps_per_second": 10.0 + place, "watching": 0.01, "model": "models/a"}
        for place, name in enumerate(NAMES)
    ]  # fmt: skip


def training_steps():
    return [
        {"name": name, "step": step, "loss": math.nan if step == 3 else 4.0 / step + place, "learning_rate": 0.1,
         "grad_norm": None if place else 1.0}
        for place, name in enumerate(NAMES) for step in range(1, 9)
    ]  # fmt: skip


def training_outliers():
    return [
        {"name": name, "step": step, "layer": layer, "top_1": (1.0 + step) * (layer + 1) + place, "top_2": 1.0,
         "top_3": 0.5, "median": 0.0 if place == 5 and step == 0 else 0.5, "start": 1.0 + step,
         "kurtosis": None if place == 3 else 3.0 + step, "sinks": min(4, step // 5), "heads": 4,
         "largest_sink": 0.1 + step / 50, "gated_sink": 0.05 if place == 2 else None,
         "x_down": math.inf if place == 1 else 2.0}
        for place, name in enumerate(NAMES) for step in (0, 10, 20) for layer in range(2)
    ]  # fmt: skip


ROWS = {"pretrainings": pretrainings, "training_steps": training_steps, "training_outliers": training_outliers}
