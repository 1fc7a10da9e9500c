"""Maps with known weights, grids and patterns, made without a model, and what a page of theirs holds."""

import base64
import json
import re
import zlib

import numpy as np

from monadnock.findings import Run, schema
from tests.report.conftest import manifest

HOSTILE = "</script><script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">\u202e\x07"
DATA = f"{HOSTILE}, 8 x 512"


def arrays(weight, bits=3, group=None, seed=0):
    """Return the arrays of a map of a float32 matrix [out, in]."""
    rng = np.random.default_rng(seed)
    width = weight.shape[1]
    size = group or width
    step = np.maximum(np.abs(weight).max(1) / 32767, 1e-38).astype(np.float32)
    parts = [weight[:, start : start + size] for start in range(0, width, size)]
    low, high = (np.stack([getattr(part, end)(1) for part in parts], 1) for end in ("min", "max"))
    flat = low == high
    low, high = np.where(flat, -1, low), np.where(flat, 1, high)
    scale = ((high - low) / (2**bits - 1)).astype(np.float32)
    plain = (10 ** rng.normal(0, 0.5, width)).astype(np.float32)
    return {
        "codes": np.rint(weight / step[:, None]).astype(np.int16),
        "step": step,
        "scale": scale,
        "zero": (-low / scale).astype(np.float32),
        "plain": plain,
        "compensated": (plain * rng.uniform(0.05, 0.9, width)).astype(np.float32),
    }


def facts(layer, module, *, expert="", bits=3, group="", heads=None, pairs=""):
    axis, count, width = heads or ("", "", "")
    return {
        "layer": str(layer), "module": module, "expert": str(expert), "name": f"model.layers.{layer}.{HOSTILE}",
        "bits": str(bits), "group": str(group), "damping": "0.01", "data": DATA, "tokens": "4096",
        "axis": axis, "d_head": str(width), "num_heads": str(count), "pairs": pairs,
    }  # fmt: skip


def gaussian(height, width, seed=0):
    return 0.05 * np.random.default_rng(seed).standard_normal((height, width), dtype=np.float32)


def sensitivities(found, bits, group=None):
    """Return |w|, s with and without compensation, [out, in]: each weight against every level of its grid."""
    weight = found["codes"].astype(np.float64) * found["step"][:, None]
    size = group or weight.shape[1]
    scale, zero = (np.repeat(found[each], size, 1)[:, : weight.shape[1]] for each in ("scale", "zero"))
    errors = np.full(weight.shape, np.inf)
    for level in range(2**bits):
        errors = np.minimum(errors, np.abs(weight - scale.astype(np.float64) * (level - zero.astype(np.float64))))
    return {
        "magnitude": np.abs(weight),
        "compensated": errors**2 * found["compensated"],
        "plain": errors**2 * found["plain"],
    }


def pattern(kind, name, place, score=3.0, **more):
    ends = dict(zip(("row_start", "row_end", "column_start", "column_end"), place or [None] * 4, strict=True))
    told = {
        "layer": 2,
        "module": "q",
        "expert": None,
        "kind": kind,
        "bits": 3,
        "group": None,
        "damping": 0.01,
        "data": DATA,
    }
    told |= {"pattern": name, "axis": "row", "score": score, "null_score": 1.0, "p_value": 0.001, "found": True}
    return told | {"head": None, "aligned": None} | ends | more


PATTERNS = [
    pattern("compensated", "row", (417, 418, 0, 700), 8.5),
    pattern("compensated", "row", (33, 34, 0, 700), 9.25),
    pattern("compensated", "partial_row", (200, 201, 100, 200), aligned=True),
    pattern("plain", "column", (0, 600, 77, 78), axis="column"),
    pattern("compensated", "attention_head", (180, 240, 0, 700), head=3),
    pattern("compensated", "rotary", (0, 600, 0, 700), 0.4),
    pattern("compensated", "unstructured", None, 0.83, p_value=None, found=None, axis=None),
    pattern("compensated", "row", (500, 501, 0, 700), found=False),
    pattern("compensated", "row", (501, 502, 0, 700), bits=4),
    pattern("compensated", "row", (502, 503, 0, 700), module="k"),
    pattern("compensated", "row", (503, 504, 0, 700), data="another text"),
    pattern("sequential", HOSTILE, (10, 20, 30, 40)),
]


def planted():
    """Return the matrix of layer 2 q: 10 heads of 60 rows, a strong row, and one huge weight."""
    weight = gaussian(600, 700)
    weight[417] *= 8
    weight[123, 456] = 1.5
    weight[300, 10:20] = 0
    return weight


def odd_matrices():
    """Return matrices at the edges of what there is: name, weights, bits, group, facts."""
    flat = gaussian(20, 300, 1)
    flat[3] = 0.25
    flat[4] = 0
    return {
        "map-000-down-003": (flat, 3, None, facts(0, "down", expert=3)),
        "map-000-o": (gaussian(300, 250, 2), 4, 100, facts(0, "o", bits=4, group=100, heads=("column", 5, 50))),
        "map-001-up": (gaussian(1, 513, 3), 2, None, facts(1, "up", bits=2)),
        "map-001-v": (gaussian(257, 1, 4), 3, None, facts(1, "v")),
    }


def write(path):
    """Write a run with all of these maps, and the patterns of layer 2 q."""
    run = Run.write(path, manifest(), {"patterns": schema.table("patterns").frame(PATTERNS)})
    pairs = " ".join(f"{each}-{each + 30}" for each in range(30))
    run.add_tensors("map-002-q", arrays(planted()), facts(2, "q", heads=("row", 10, 60), pairs=pairs))
    for name, (weight, bits, group, told) in odd_matrices().items():
        run.add_tensors(name, arrays(weight, bits, group), told)
    run.add_tensors("other", {"values": np.zeros(3)}, {})
    return run


class Held:
    """What a page holds, read without its script."""

    def __init__(self, path):
        self.text = path.read_text(encoding="utf-8")
        self.elements = dict(
            re.findall(r'<script type="text/plain" id="([\w-]+)">([A-Za-z0-9+/=]*)</script>', self.text)
        )
        self.about = json.loads(re.search(r'id="about">(.*?)</script>', self.text)[1])

    def bytes(self, key):
        return np.frombuffer(zlib.decompress(base64.b64decode(self.elements[key]), -15), np.uint8)

    def floats(self, name):
        return self.bytes(f"array-{name}").view("<f4")

    def pool(self, quantity, side):
        height, width = (-(-length // side) for length in self.about["shape"])
        return self.bytes(f"pool-{quantity}-{side}").reshape(height, width)

    def weights(self):
        """Return the weights of all tiles, float64 [out, in]."""
        codes = np.zeros(self.about["shape"])
        side = self.about["side"]
        for i in range(0, codes.shape[0], side):
            for j in range(0, codes.shape[1], side):
                part = codes[i : i + side, j : j + side]
                data = self.bytes(f"tile-{i // side}-{j // side}")
                size = (data[: part.size] & 127).astype(int)
                for plane in data[part.size :].reshape(-1, -(-part.size // 8)):
                    size = 2 * size + np.unpackbits(plane)[: part.size]
                part[:] = np.where(data[: part.size] & 128, -size, size).reshape(part.shape)
        return codes * (self.floats("step").astype(np.float64) * self.about["codeStep"])[:, None]
