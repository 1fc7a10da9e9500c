"""Synthetic fine-tunings, with texts that try to break a page, and numbers that are none."""

import math

NAMES = ("lora, seed 0", "lora, macdrop step 0.8 massive, seed 0", "dora </script><i>, seed 1", *map(str, range(5)))
DATA = "examples.jsonl, 320 examples, 0123abcd"


def about(place):
    macdrop = "macdrop step 0.8 massive" if place % 2 else None
    how = {"schedule": "step", "p0": 0.8, "scope": "massive"} if macdrop else {}
    return {"name": NAMES[place], "method": "lora", "macdrop": macdrop, "seed": place, "data": DATA} | how


def ablation():
    """Three scopes at three probabilities and two seeds, and one without; the value tells which."""
    cells = [(None, None)] + [(scope, p0) for scope in ("massive", "all", "</b>") for p0 in (0.2, 0.5, 0.9)]
    return [
        {"name": f"{scope} {p0} {seed}", "method": "lora", "seed": seed, "schedule": scope and "constant", "p0": p0,
         "macdrop": scope and f"macdrop constant {p0} {scope}", "scope": scope, "zeroed": count, "metric": metric,
         "text": "t", "value": 10.0 * (p0 or 0) + seed + count, "base": 1.0}
        for scope, p0 in cells for seed in (0, 1) for count in (0, 3) for metric in ("perplexity", "a:acc", "b:acc")
    ]  # fmt: skip


def finetunings():
    rows = {
        "examples": 300,
        "too_long": 0,
        "steps": 6,
        "epochs": 3.0,
        "trainable": 4_884_480,
        "before": 2.5,
        "adapter": "adapters/a",
    }
    return [about(place) | rows | {"after": math.nan if place == 2 else 1.5 + place} for place in range(len(NAMES))]


def finetuning_steps():
    return [
        {"name": name, "step": step, "loss": math.inf if step == 3 else 3.0 / step, "learning_rate": 1e-4 / step,
         "p": None if place % 2 == 0 else 0.8 / step, "dropped": None}
        for place, name in enumerate(NAMES) for step in range(1, 7)
    ]  # fmt: skip


def robustness():
    orders = {0: [None], 2: ["merged"], 3: ["merged"]}
    return [
        about(place) | {"zeroed": count, "order": order, "metric": metric, "text": "built in",
                        "value": 13.0 * (1 + count) + place, "base": math.inf if count == 3 else 13.0 * (1 + count)}
        for place in range(3) for count in (0, 2, 3) for order in orders[count]
        for metric in ("answer_loss", "perplexity", "<b>:acc")
    ]  # fmt: skip


def answers():
    """Two kinds of questions, one of two turns; the third model's answers differ most, and one has no score."""
    turns = [("MT-1", "a", 1), ("MT-2", "a", 2), ("qa", "<i>", 1), ("</script>", None, 1)]
    return [
        {"name": name, "questions": "q.jsonl", "question": question, "category": column, "column": column, "turn": turn,
         "asked": "What is <b>that</b>?", "answer": f"{place} \x00</script><b>", "tokens": 3, "judge": "<judge>",
         "feedback": "fine", "score": None if column == "qa" and place == 1 else min(5, 1 + place * turn)}
        for place, name in enumerate((None, *NAMES[:2])) for column, question, turn in turns
    ]  # fmt: skip


ROWS = {"finetunings": finetunings, "finetuning_steps": finetuning_steps, "robustness": robustness,
        "answers": answers}  # fmt: skip
