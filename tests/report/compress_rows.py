"""Synthetic sensitivities, patterns, compressors and prescriptions of a mixture, with texts that try to break it."""

import math
import random

LAYERS, EXPERTS, LISTED = 6, 3, 16
TEXT = "</script><i>topics</i>, 2 x 64, BOS, 0123abcd"
SETTINGS = (
    {"bits": 3, "group": None, "damping": 0.01, "data": TEXT},
    {"bits": 4, "group": 16, "damping": 0.01, "data": TEXT},
)
MODULES = [(name, None) for name in "qkvo"] + [(name, e) for name in ("gate", "up", "down") for e in range(EXPERTS)]
PATTERNS = ("row", "partial_row", "column", "attention_head", "rotary")
KINDS = ("compensated", "plain", "sequential")
METHODS = (
    "absmax 8 bits tensor", "absmax 8 bits row", "spqr 3 bits group 16 threshold 0.2",
    "gptq 4 bits group 16, massive rows kept, without 'down of layer 2, expert 1'",
    "rtn <b>4 bits</b> $$x^2$$</script>",
)  # fmt: skip
BITS = (8.0, 8.03, 4.2, 6.1, 4.05)


def matrices(setting, step=1, kinds=KINDS):
    """Return the columns that tell a matrix, a setting and a kind; the second setting has a few layers only."""
    return [
        {"layer": layer, "module": module, "expert": expert, "kind": kind} | setting
        for layer in range(0, LAYERS, step)
        for module, expert in MODULES
        for kind in kinds
    ]


def unseen(about):
    """Say whether an expert got no token."""
    return about["expert"] == 2 and about["layer"] in (1, 3)


def sensitivity():
    rng = random.Random(0)
    rows = []
    for about in [*matrices(SETTINGS[0]), *matrices(SETTINGS[1], 3, ["plain"])]:
        row = about | {"name": f"model.layers.{about['layer']}.{about['module']}", "num_inputs": 32}
        row["num_tokens"] = 0 if unseen(about) else rng.randrange(1, 200)
        if not unseen(about):
            relative = rng.lognormvariate(-6, 2) * (10 if about["kind"] == "plain" else 1)
            odd = {(0, "q"): math.inf, (0, "k"): math.nan, (0, "v"): 0.0}.get((about["layer"], about["module"]))
            top = rng.random() / 3
            row |= {"total": 7 * relative, "relative": relative if odd is None else odd, "num_dead": rng.randrange(3)}
            row |= {"top_1e4": top / 2, "top_1e3": top, "top_1e2": 2 * top}
        rows.append(row)
    return rows


def sensitivity_lines():
    """Yield shares: columns 3 and 9 of down of layer 2, expert 1 hold the plain loss and are not seen in the others."""
    rng = random.Random(1)
    rows = []
    for about in matrices(SETTINGS[0]):
        if unseen(about):
            continue
        pair = (about["layer"], about["module"], about["expert"], about["kind"]) == (2, "down", 1, "plain")
        for axis in ("row", "column"):
            indices = rng.sample([i for i in range(32) if i not in (3, 9)], LISTED)
            shares = sorted((rng.random() / 25 for _ in indices), reverse=True)
            if pair and axis == "column":
                indices[:2], shares[:2] = [3, 9], [0.85, 0.12]
            rows += [
                about | {"axis": axis, "rank": rank, "index": index, "share": share}
                for rank, (index, share) in enumerate(zip(indices, shares, strict=True), 1)
            ]
    return rows


def patterns():
    rng = random.Random(2)
    rows = []
    for about in matrices(SETTINGS[0]):
        if about["kind"] != "compensated" or unseen(about):
            continue
        axis = "column" if about["module"] == "o" else "row"
        heads = about["module"] in "qkvo"
        spans = {
            "row": ("row", (5, 6), (0, 32), None),
            "partial_row": ("row", (5, 6), (8, 16), None),
            "column": ("column", (0, 32), (3, 4), None),
            "attention_head": (axis, *(((0, 32), (8, 16)) if axis == "column" else ((8, 16), (0, 32))), 1),
            "rotary": (axis, (0, 32), (0, 32), None),
        }
        for name, (lines, (top, bottom), (left, right), head) in spans.items():
            if name == "rotary" and about["module"] not in "qk":
                continue
            found = rng.random() < 0.5
            rows.append(
                about
                | {"pattern": name, "axis": lines, "score": rng.random() if name == "rotary" else 2 + 9 * rng.random()}
                | {
                    "null_score": 0.1,
                    "p_value": 0.01 if found else 0.4,
                    "found": found,
                    "head": head if heads else None,
                }
                | {"aligned": found if name == "partial_row" else None, "row_start": top, "row_end": bottom}
                | {"column_start": left, "column_end": right}
            )
        rows.append(about | {"pattern": "unstructured", "score": rng.random()})
    rows.append(rows[0] | {"pattern": "<b>waves</b>", "score": math.inf, "found": True, "p_value": None})
    return rows


def compressions():
    rng = random.Random(3)
    return [
        {
            "method": method, "layer": layer, "module": module, "expert": expert, "average_bits": bits,
            "name": f"model.layers.{layer}.<b>{module}</b>", "outlier_share": 0.01, "kept_rows": 0,
            "weight_error": math.inf if (layer, module) == (5, "o") else rng.lognormvariate(-3, 1),
            "output_error": rng.lognormvariate(-5, 1) if "group" in method and (layer, expert) != (1, 2) else None,
        }
        for method, bits in zip(METHODS, BITS, strict=True)
        for layer in range(LAYERS)
        for module, expert in MODULES
        if not ("without" in method and (layer, module) == (2, "down"))
    ]  # fmt: skip


def effects():
    """Return what compressors do, as rows of the table `effects`."""
    values = (13.8, 13.0, 17.1, math.inf, 530.0)
    about = {"mode": "compress", "targets": "54 matrices", "data": TEXT, "k": None}
    return [
        about | {"method": method, "metric": metric, "value": value, "baseline": clean}
        for method, bits, perplexity in zip(METHODS, BITS, values, strict=True)
        for metric, value, clean in (
            ("perplexity", perplexity, 12.9), ("kl", 0.1 * bits, 0.0), ("top1_agreement", 0.9, 1.0),
            ("average_bits", bits, 32.0), *([("stored_bits", bits + 0.5, 32.0)] if "spqr" in method else []),
        )
    ]  # fmt: skip


def prescriptions():
    about = {"evidence": "sensitivity.relative", "value": 0.36, "bound": 0.1, "reason": "Rounding it costs much."}
    return [
        about | {"rank": 2, "action": "keep_sinks", "amount": 4.0, "evidence": "heads.sink_position", "bound": None},
        about | {"rank": 1, "action": "keep_module", "layer": 2, "module": "down", "expert": 1, "name": "<b>down</b>",
                 "reason": "</script><script>document.title = 'owned'</script> $$x^2$$ \x00"},
        about | {"rank": 3, "action": "keep_rows", "layer": 2, "module": "up", "expert": None, "rows": "7 14"},
        about | {"rank": 4, "action": "not_judged", "reason": "Nobody looked.", "value": None, "evidence": None},
        about | {"rank": None, "action": None, "reason": None, "value": math.nan},
    ]  # fmt: skip


ROWS = {
    "sensitivity": sensitivity,
    "sensitivity_lines": sensitivity_lines,
    "patterns": patterns,
    "compressions": compressions,
    "prescriptions": prescriptions,
}
