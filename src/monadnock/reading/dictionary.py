"""A dictionary: one vector for each token of the vocabulary, against which states and weights are read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monadnock.errors import MonadnockError
from monadnock.models import Adapter
from monadnock.models.offload import present
from monadnock.reading.folding import run_norm

NAMES = ("input", "output", "middle")
BLOCK = 8192  # rows that are multiplied at once: no product is as large as states x vocabulary
_STATES = 1024  # states that are read at once

Rows = Literal["normalised", "raw"]


class Top(NamedTuple):
    """The tokens with the largest amplitudes, largest first.

    Attributes:
        amplitudes: [vector, k].
        ids: token ids, [vector, k].
    """

    amplitudes: Tensor
    ids: Tensor


@dataclass(frozen=True)
class Dictionary:
    """Token vectors, and what a state goes through before it is compared with them.

    Attributes:
        name: input, output or middle.
        rows: [token, d_model], as the model stores them, or as they were made.
        norm: the model's final norm, for the output dictionary; it is applied to every state anew.
        mean: what L2-normalised states have in common [d_model], where it was taken from the rows (middle).
    """

    name: str
    rows: Tensor
    norm: Any = field(default=None, repr=False)
    mean: Tensor | None = field(default=None, repr=False)

    def states(self, states: Tensor) -> Tensor:
        """Return states [n, d_model] as they are read: behind the norm, without the mean, L2-normalised (float32)."""
        states = F.normalize((states if self.norm is None else run_norm(self.norm, states)).float(), dim=1)
        return states if self.mean is None else F.normalize(states - self.mean.to(states.device), dim=1)

    def directions(self, vectors: Tensor) -> Tensor:
        """Return vectors of weights [n, d_model] as they are read: L2-normalised (float32), whatever their size.

        Behind a norm that is what they add to its output: its gains are in it, its bias is not.
        """
        vectors = F.normalize(vectors.float(), dim=1)
        if self.norm is None:
            return vectors
        behind = run_norm(self.norm, vectors * vectors.shape[1] ** 0.5)  # as large as states that a norm gives
        return F.normalize((behind - run_norm(self.norm, torch.zeros_like(vectors[:1]))).float(), dim=1)

    def blocks(self, rows: Rows = "normalised", only: Tensor | None = None) -> Iterator[tuple[int, Tensor]]:
        """Yield (first row, rows [block, d_model] in float32) over the dictionary, or over the rows named in `only`."""
        for start in range(0, len(self.rows) if only is None else len(only), BLOCK):
            part = self.rows[start : start + BLOCK] if only is None else self.rows[only[start : start + BLOCK]]
            part = part.detach().float()
            yield start, F.normalize(part, dim=1) if rows == "normalised" else part

    def top(
        self, vectors: Tensor, k: int, *, rows: Rows = "normalised", only: Tensor | None = None, least: bool = False
    ) -> Top:
        """Return the tokens whose rows have the largest inner products with each vector.

        The vocabulary goes by in blocks; of each only the largest k are kept.

        Args:
            vectors: [n, d_model], as `states` or `directions` gives them.
            k: how many tokens.
            rows: normalised, so that an amplitude is a cosine, or raw.
            only: token ids among which they are looked for, [m].
            least: the smallest in place of the largest, smallest first.

        Example:
            >>> words = Dictionary("input", torch.eye(3))
            >>> words.top(torch.tensor([[0.0, 1.0, 0.5]]), 2).ids.tolist()
            [[1, 2]]
        """
        if len(vectors) > _STATES:
            parts = [self.top(part, k, rows=rows, only=only, least=least) for part in vectors.split(_STATES)]
            return Top(torch.cat([part.amplitudes for part in parts]), torch.cat([part.ids for part in parts]))
        sign = -1.0 if least else 1.0
        vectors = vectors.to(self.rows.device) * sign
        best = vectors.new_full((len(vectors), 0), 0.0)
        ids = torch.zeros_like(best, dtype=torch.int64)
        for start, block in self.blocks(rows, only):
            amplitudes = vectors @ block.t()  # [vector, block]
            found = amplitudes.topk(min(k, amplitudes.shape[1]), dim=1)
            best, place = torch.cat([best, found.values], 1).topk(min(k, best.shape[1] + found.values.shape[1]), dim=1)
            ids = torch.cat([ids, found.indices + start], 1).gather(1, place)
        return Top((sign * best).cpu(), (ids if only is None else only.to(ids.device)[ids]).cpu())


def input_dictionary(adapter: Adapter) -> Dictionary:
    """Return the embedding rows, as wide as the residual stream.

    Rows of a model that scales its embeddings (Gemma) stay as they are stored: directions are the same.

    Raises:
        MonadnockError: if the rows have another width, and no projection of the decoder brings them to it.
    """
    return Dictionary("input", _rows(adapter, adapter.model.get_input_embeddings(), "project_in", "input"))


def output_dictionary(adapter: Adapter) -> Dictionary:
    """Return the unembedding rows, with the final norm that stands in front of them.

    What follows them is left out, as it does not change which token is first: a soft cap on logits (Gemma 2), a scale
    (Cohere). A bias is left out too, as it is not in the state.

    Raises:
        MonadnockError: if the model has none, or of another width.
    """
    head = adapter.model.get_output_embeddings()
    if head is None:
        raise MonadnockError(f"{adapter.source.id} has no output embeddings, and so no output dictionary.")
    rows = _rows(adapter, head, "project_out", "output")
    return Dictionary("output", rows, adapter.norm(None, "final"))


def _rows(adapter: Adapter, module: nn.Module, path: str, name: str) -> Tensor:
    """Return a module's rows as wide as the residual stream, also where a linear layer stands between (OPT 350M)."""
    rows = _values(module)[: num_words(adapter)]
    if rows.shape[1] == adapter.hidden_size:
        return rows
    between = getattr(adapter.decoder, path, None)
    weight = None if between is None else _values(between)
    if weight is None or adapter.hidden_size not in weight.shape:
        raise MonadnockError(
            f"{adapter.source.id} has {name} rows of {rows.shape[1]} entries, but states of {adapter.hidden_size}; "
            "they cannot be compared."
        )
    return rows @ (weight.t() if path == "project_in" else weight)


def num_words(adapter: Adapter) -> int:
    """Return how many tokens a dictionary has: rows beyond the tokenizer's largest id pad the matrix, and are cut."""
    rows = adapter.model.get_input_embeddings().weight.shape[0]
    return rows if adapter.tokenizer is None else min(rows, max(adapter.tokenizer.get_vocab().values()) + 1)


def _values(module: nn.Module) -> Tensor:
    weight = present(module, "weight")
    if weight is None:
        raise MonadnockError(f"A {type(module).__name__} has no weight whose rows could be read.")
    return weight.detach()


def one_token(tokenizer: Any, words: Sequence[str]) -> dict[str, int]:
    """Return the token of each word: that of the form with a blank in front, or else that of the word alone.

    Raises:
        MonadnockError: if a word is no single token of its own in either form, naming it.
    """
    found, missing = {}, []
    for word in words:
        forms = [tokenizer.encode(form, add_special_tokens=False) for form in (f" {word}", word)]
        single = [ids[0] for ids in forms if len(ids) == 1 and ids[0] != tokenizer.unk_token_id]
        if single:
            found[word] = single[0]
        else:
            missing.append(f"{word!r} ({'unknown' if len(forms[1]) == 1 else f'{len(forms[1])} tokens'})")
    if missing:
        raise MonadnockError(f"Words have to be single tokens of the model; {', '.join(missing)} are not: give others.")
    return found
