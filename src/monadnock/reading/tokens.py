"""How the token vectors of a dictionary lie to each other, and what they let one tell apart in a state."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from monadnock.findings.noise import noise_floor
from monadnock.reading.dictionary import Dictionary

SAMPLED = 1024  # tokens whose pairs with all others are counted
NEAREST = 10
PAIRS = 1024  # neighbours in the text that are looked at
_NOISE = 256  # random states


def singular_values(rows: Tensor) -> Tensor:
    """Return the singular values of a matrix [token, d_model] of many rows, largest first, [d_model] (float64).

    They are the roots of the eigenvalues of its d_model x d_model products, which are added up in blocks.

    Example:
        >>> [round(value, 3) for value in singular_values(torch.eye(5)[:, :2] * torch.tensor([1.0, 3.0])).tolist()]
        [3.0, 1.0]
    """
    total = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for block in rows.split(4096):
        block = block.detach().double().cpu()
        total += block.t() @ block
    return torch.linalg.eigvalsh(total).clamp(min=0).sqrt().flip(0)


def effective_rank(values: Tensor) -> float:
    """Return exp of the entropy of singular values over their sum: how many directions there are (roy2007).

    Example:
        >>> round(effective_rank(torch.ones(7)), 6), effective_rank(torch.tensor([5.0, 0.0]))
        (7.0, 1.0)
    """
    if not values.any():
        return 0.0
    share = values.double() / values.double().sum()
    return float(torch.exp(-torch.special.xlogy(share, share).sum()))


def dictionary_facts(dictionary: Dictionary, own: Dictionary, values: Tensor, seed: int = 0) -> dict[str, Any]:
    """Measure a dictionary: the columns of the table `dictionaries`.

    Args:
        dictionary: what is measured.
        own: the input dictionary, with whose rows those of the same tokens are compared.
        values: its singular values, largest first.
        seed: chooses the sampled tokens and the random states.

    Example:
        >>> words = Dictionary("input", torch.eye(4))
        >>> dictionary_facts(words, words, torch.ones(4))["positive_share"]
        0.0
    """
    count, width = dictionary.rows.shape
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randperm(count, generator=generator)[:SAMPLED]
    device = dictionary.rows.device
    sampled = F.normalize(dictionary.rows[sample.to(device)].float(), dim=1)
    noise = dictionary.states(torch.randn(_NOISE, width, generator=generator)).to(device)
    positive = torch.zeros(len(sample), dtype=torch.float64, device=device)
    total, largest, norms, correlation = positive.clone(), noise.new_zeros(_NOISE), 0.0, 0.0
    for start, block in dictionary.blocks():
        products = block @ sampled.t()  # [block, sampled]
        positive += (products > 0).double().sum(0)
        total += products.double().sum(0)
        largest = torch.maximum(largest, (block @ noise.t()).amax(0))
        raw = dictionary.rows[start : start + len(block)].detach().float()
        norms += float(raw.norm(dim=1).double().sum())
        theirs = own.rows[start : start + len(block)].detach().float().to(device)
        correlation += float(_pearson(raw[: len(theirs)], theirs).double().sum())
    itself = (sampled * sampled).sum(1).double()  # 1, or 0 for a row of zeros
    positive, total = positive - itself.round(), total - itself
    shares = positive / max(count - 1, 1)
    floor = noise_floor(width)
    return {
        "dictionary": dictionary.name,
        "num_tokens": count,
        "width": width,
        "mean_norm": norms / count,
        "positive_share": float(shares.mean()),
        "positive_error": float(shares.std() / math.sqrt(len(shares))) if len(shares) > 1 else None,
        "mean_similarity": float((total / max(count - 1, 1)).mean()),
        "effective_rank": effective_rank(values),
        "stable_rank": float(values.square().sum() / values[0].square()),
        "own_correlation": correlation / min(count, len(own.rows)),
        "noise_floor": floor,
        "capacity": 1 / floor**2 if floor else None,
        "noise_largest": float(largest.mean()),
    }


def _pearson(first: Tensor, second: Tensor) -> Tensor:
    """Return the correlation of rows with rows, [n]."""
    first, second = first - first.mean(1, keepdim=True), second - second.mean(1, keepdim=True)
    return F.cosine_similarity(first, second, dim=1)


def similarities(dictionary: Dictionary, words: dict[str, int]) -> list[dict[str, Any]]:
    """Return the normalised inner products of all pairs of words: rows of the table `word_similarity`."""
    ids = torch.tensor(list(words.values()), dtype=torch.int64, device=dictionary.rows.device)
    rows = F.normalize(dictionary.rows[ids].detach().float(), dim=1)
    products = (rows @ rows.t()).tolist()
    return [
        {"dictionary": dictionary.name, "word_a": a, "word_b": b, "similarity": products[i][j]}
        for i, a in enumerate(words)
        for j, b in enumerate(words)
    ]


def nearest(
    relation: str, dictionary: Dictionary, words: dict[str, int], vectors: Tensor, decode: Any
) -> list[dict[str, Any]]:
    """Return the tokens near each word's vector, itself left out: rows of the table `nearest_words`."""
    top = dictionary.top(vectors, NEAREST + 1)
    rows = []
    for (word, own), ids, amplitudes in zip(words.items(), top.ids.tolist(), top.amplitudes.tolist(), strict=True):
        others = [pair for pair in zip(ids, amplitudes, strict=True) if pair[0] != own][:NEAREST]
        rows += [
            {
                "relation": relation,
                "asked": word,
                "rank": rank,
                "word_id": each,
                "word": decode([each]),
                "similarity": value,
            }
            for rank, (each, value) in enumerate(others, start=1)
        ]
    return rows


def continuation_test(own: Dictionary, output: Dictionary, ids: Tensor, seed: int = 0) -> dict[str, Any] | None:
    """Test whether raw input embeddings, read by the output dictionary, suggest what comes next: `continuations`.

    Args:
        own: the input dictionary.
        output: the output dictionary.
        ids: windows of a text, [window, seq].
        seed: chooses the pairs, and deals the second tokens out anew for the control.

    Returns:
        The row of the table; None if the text has fewer than two pairs.
    """
    pairs = torch.stack([ids[:, :-1].flatten(), ids[:, 1:].flatten()], 1).unique(dim=0)
    pairs = pairs[(pairs < min(len(own.rows), len(output.rows))).all(1)]
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]  # a tied embedding reads itself back
    generator = torch.Generator().manual_seed(seed)
    pairs = pairs[torch.randperm(len(pairs), generator=generator)[:PAIRS]]
    if len(pairs) < 2:
        return None
    first, second = pairs.t().to(output.rows.device)
    dealt = second.roll(1)  # the pairs are in random order
    dealt = torch.where(dealt == first, second.roll(2), dealt)
    states = output.states(own.rows[first.to(own.rows.device)].detach().float()).to(output.rows.device)
    ranks = _ranks(output, states, [second, dealt], first)
    return {
        "pairs": len(first),
        "rank": float(ranks[0].median()),
        "control_rank": float(ranks[1].median()),
        "top_share": float((ranks[0] <= NEAREST).double().mean()),
        "control_share": float((ranks[1] <= NEAREST).double().mean()),
        "better_share": float(((ranks[0] < ranks[1]).double() + 0.5 * (ranks[0] == ranks[1]).double()).mean()),
    }


def _ranks(dictionary: Dictionary, states: Tensor, targets: Sequence[Tensor], own: Tensor) -> list[Tensor]:
    """Return the rank of each state's targets among all tokens but its own, 1 for the largest amplitude."""
    bounds = [(states * F.normalize(dictionary.rows[ids].detach().float(), dim=1)).sum(1) for ids in targets]
    ranks = [torch.ones(len(states), dtype=torch.float64) for _ in targets]
    for start, block in dictionary.blocks():
        amplitudes = states @ block.t()
        for rank, bound, ids in zip(ranks, bounds, targets, strict=True):
            above = amplitudes > bound[:, None]
            for each in (ids, own):  # rounding must not put a token before itself
                here = (each >= start) & (each < start + len(block))
                above[here.nonzero().flatten(), each[here] - start] = False
            rank += above.sum(1).double().cpu()
    return ranks
