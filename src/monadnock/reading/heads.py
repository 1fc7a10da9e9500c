"""What attention heads look for and what they write, read from their weights (wray2023, section 3)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monadnock.models import Adapter
from monadnock.reading.dictionary import Dictionary, Top
from monadnock.reading.folding import behind, centres, in_front
from monadnock.reading.tokens import effective_rank
from monadnock.stats.probabilities import LOCAL

OFFSET_MASS = 0.3  # attention to one fixed distance from which a head counts as driven by position
PAIRS = 3  # strongest singular pairs that are decoded
WORDS = 8  # tokens at each end of a vector


@dataclass(frozen=True)
class Circuits:
    """The singular pairs of every head of a layer for one pair of matrices that act as one.

    Attributes:
        name: qk or ov.
        values: singular values, largest first, [head, d_head].
        left: what it is looked for with (query side), or written, [head, PAIRS, d_model].
        right: what is looked for (key side), or read (value side), [head, PAIRS, d_model].
    """

    name: str
    values: Tensor
    left: Tensor
    right: Tensor


def head_rows(adapter: Adapter, layer: int, role: str) -> Tensor:
    """Return the rows of W_q, W_k or W_v by query head, the gains of the norms around them folded in.

    Args:
        adapter: the model.
        layer: 0-based decoder layer.
        role: q, k or v; the rows of a key-value head stand at each query head that it serves.

    Returns:
        [head, d_head, d_model] (float32): each row is a direction of h that the head reads.
    """
    rows = in_front(adapter, layer, "attn_input", adapter.weight(layer, role).read().float())
    rows = rows.unflatten(0, (-1, adapter.d_head))
    inner = {"q": "query", "k": "key"}.get(role)
    norm = None if inner is None else adapter.norm(layer, inner)
    if inner is not None and norm is not None:  # of a head, or of all heads at once
        if centres(norm):
            rows = rows - rows.mean(1, keepdim=True)
        gains = adapter.gains(layer, inner)
        rows = rows if gains is None else rows * gains.to(rows.device).view(-1, adapter.d_head, 1)
    return rows.repeat_interleave(adapter.num_heads // rows.shape[0], dim=0)


def qk_circuits(adapter: Adapter, layer: int) -> Circuits:
    """Return the singular pairs of W_q^T W_k of every head: pairs of directions of h that attend to each other.

    Rotary is left out: this is how a query sees a key at its own position.
    """
    return _pairs("qk", head_rows(adapter, layer, "q"), head_rows(adapter, layer, "k"))


def ov_circuits(adapter: Adapter, layer: int) -> Circuits:
    """Return the singular pairs of W_o W_v of every head: directions of h that are read, and what each writes."""
    output = adapter.weight(layer, "o").read().float().unflatten(1, (-1, adapter.d_head)).permute(1, 2, 0)
    return _pairs("ov", behind(adapter, layer, "attn_output", output), head_rows(adapter, layer, "v"))


def _pairs(name: str, left: Tensor, right: Tensor) -> Circuits:
    """Return the singular pairs of left^T right, whose rank is d_head, without making a d_model x d_model matrix."""
    q_left, r_left = torch.linalg.qr(left.mT)  # [head, d_model, d_head], [head, d_head, d_head]
    q_right, r_right = torch.linalg.qr(right.mT)
    u, values, v = torch.linalg.svd(r_left @ r_right.mT)
    return Circuits(name, values, (q_left @ u[..., :PAIRS]).mT, (q_right @ v.mT[..., :PAIRS]).mT)


def offset(head: Mapping[str, Any], length: int) -> tuple[int | None, float]:
    """Return the fixed place that gets most of a head's attention, and how much.

    0 is the query itself, 1 the token before; None stands for the last 8 keys together, of heads of the kind `local`
    that give these at least twice what they would get if all keys were alike.

    Args:
        head: a row of the table `heads`.
        length: tokens of the windows that it was seen over.

    Example:
        >>> head = {"kind": "local", "self_mass": 0.1, "previous_mass": 0.2, "local_mass": 0.7}
        >>> offset(head, 1024), offset(head, 16)
        ((None, 0.7), (1, 0.2))
    """
    single = max((0, head["self_mass"]), (1, head["previous_mass"]), key=lambda pair: pair[1])
    alike = sum(min(LOCAL, seen) / seen for seen in range(1, length + 1)) / length
    local = head["kind"] == "local" and single[1] <= OFFSET_MASS and head["local_mass"] >= 2 * alike
    return (None, head["local_mass"]) if local else single


def by_position(offset: tuple[int | None, float] | None) -> bool:
    """Say whether a head is driven by position, by the distance that gets most of its attention and its share."""
    return offset is not None and offset[1] > OFFSET_MASS


def read_layer(
    adapter: Adapter,
    layer: int,
    offsets: Mapping[int, tuple[int | None, float]],
    dictionaries: tuple[Dictionary, Dictionary],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Read the heads of a layer: rows of the tables `circuits` and `readings`.

    Args:
        adapter: the model.
        layer: 0-based decoder layer.
        offsets: by head, the distance that gets the largest share of its attention, and that share.
        dictionaries: the input and the output dictionary.
    """
    own, output = dictionaries
    circuits, readings = [], []
    for found in (qk_circuits(adapter, layer), ov_circuits(adapter, layer)):
        sides = (("query", own), ("key", own)) if found.name == "qk" else (("writes", output), ("reads", own))
        read = [_both_ends(words, side) for (_, words), side in zip(sides, (found.left, found.right), strict=True)]
        count = found.left.shape[1]
        for head, values in enumerate(found.values):
            offset, mass = offsets.get(head, (None, None))
            driven = by_position(offsets.get(head))
            circuits.append(
                {
                    "layer": layer,
                    "head": head,
                    "circuit": found.name,
                    "singular_value": float(values[0]),
                    "effective_rank": effective_rank(values),
                    "offset_mass": mass,
                    "offset": offset,
                    "position_driven": driven,
                }
            )
            if driven and found.name == "qk":
                continue
            for (side, words), ends in zip(sides, read, strict=True):
                for pair in range(count):
                    place: dict[str, Any] = {"kind": found.name, "layer": layer, "head": head, "index": pair}
                    place |= {"side": side, "strength": float(values[pair])}
                    readings += [place | row for row in named(adapter, words, ends, head * count + pair)]
    return circuits, readings


def read_rows(
    adapter: Adapter, layer: int, role: str, offsets: Mapping[int, tuple[int | None, float]], words: Dictionary
) -> Iterator[dict[str, Any]]:
    """Read every row of W_q or W_k of the heads that are not driven by position: rows of the table `readings`.

    Args:
        adapter: the model.
        layer: 0-based decoder layer.
        role: q or k.
        offsets: as for `read_layer`.
        words: the input dictionary.
    """
    vectors = head_rows(adapter, layer, role)
    ends = _both_ends(words, vectors)
    strengths = vectors.norm(dim=2).tolist()
    for head in range(len(vectors)):
        if by_position(offsets.get(head)):
            continue
        for index, strength in enumerate(strengths[head]):
            place = {"kind": f"{role}_row", "layer": layer, "head": head, "index": index}
            place |= {"side": "query" if role == "q" else "key", "strength": strength}
            for row in named(adapter, words, ends, head * adapter.d_head + index):
                yield place | row


def _both_ends(words: Dictionary, vectors: Tensor) -> tuple[Top, Top]:
    return both_ends(words, vectors.flatten(0, 1))


def both_ends(words: Dictionary, vectors: Tensor) -> tuple[Top, Top]:
    """Return the tokens with the largest and with the smallest amplitudes of vectors of weights [n, d_model]."""
    read = words.directions(vectors)
    return words.top(read, WORDS), words.top(read, WORDS, least=True)


def named(adapter: Adapter, words: Dictionary, ends: tuple[Top, Top], index: int) -> list[dict[str, Any]]:
    """Return the rows of one vector: columns dictionary, sign, rank, word_id, word and amplitude."""
    decode: Callable[[list[int]], str] = adapter.tokenizer.decode
    return [
        {
            "dictionary": words.name,
            "sign": sign,
            "rank": rank,
            "word_id": word,
            "word": decode([word]),
            "amplitude": amplitude,
        }
        for sign, top in zip((1, -1), ends, strict=True)
        for rank, (word, amplitude) in enumerate(
            zip(top.ids[index].tolist(), top.amplitudes[index].tolist(), strict=True), start=1
        )
    ]
