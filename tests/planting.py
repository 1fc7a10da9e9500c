"""Plant outliers into tiny random models: massive rows, a massive feature, its end, and a sink."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from monadnock.models import Adapter, Source, observe
from monadnock.sites import Site, Stream
from tests.tiny import tiny_model
from tests.words import BOS_ID, FIRST_WORD_ID

LAYERS, WIDTH, INNER, HEADS = 4, 32, 64, 4
MARKER = 7  # w7 stands in the embedding's marker feature; the texts have it once in every window
KEY, QUERY = 2.0, 20.0  # size of the planted entry of keys and of queries: a logit of 14 with d_head 8
_SIZES: dict[str, dict[str, int]] = {
    "llama": {"intermediate_size": INNER, "num_hidden_layers": LAYERS},
    "mixtral": {"intermediate_size": INNER, "num_hidden_layers": LAYERS},
    "gpt2": {"n_inner": INNER, "n_layer": LAYERS},
}


@dataclass(frozen=True)
class Reserved:
    """Residual features that no layer writes: where all tokens, the start token and the marker word are marked."""

    every: int
    start: int
    marker: int


@dataclass
class Patient:
    """A tiny model into which outliers are planted, with the text [window, seq] that it will be scanned with."""

    model_type: str
    ids: Tensor
    reserved: Reserved
    seed: int = 0
    adapter: Adapter = field(init=False)

    def __post_init__(self) -> None:
        model = tiny_model(self.model_type, self.seed, **_SIZES[self.model_type])
        self.adapter = Adapter(model, None, Source(self.model_type, "object"))
        with torch.no_grad():
            self._reserve()

    def _reserve(self) -> None:
        """Mark the tokens in the reserved features, keep the layers from writing there, and calm attention."""
        adapter, reserved = self.adapter, self.reserved
        features = [reserved.every, reserved.start, reserved.marker]
        embedding = adapter.model.get_input_embeddings().weight
        embedding[:, features] = torch.tensor([0.5, 0.0, 0.0])
        embedding[BOS_ID, reserved.start] = 2.0
        embedding[FIRST_WORD_ID + MARKER, reserved.marker] = 2.0
        if adapter.family.positions:
            adapter.decoder.get_submodule(adapter.family.positions).weight[:, features] = 0
        for layer in range(adapter.num_layers):
            for role, expert, view in adapter.matrices(layer):
                for part in (view, adapter.bias(layer, role, expert) if role != "router" else None):
                    if part is not None and role == "q":
                        part.read().mul_(0.1)
                    if part is not None and role in ("o", "down"):
                        part.set_rows(torch.tensor(features), 0.0)

    # what the model does by now

    def states(self, stream: Stream, layer: int) -> Tensor:
        """Return the states of all windows at a site, [window, seq, width]."""
        return torch.stack([self._look(row, stream, layer) for row in self.ids])

    def start(self, stream: Stream, layer: int) -> Tensor:
        """Return the state of the start token fed alone, [width]."""
        return self._look(self.ids[0, :1], stream, layer)[0]

    def _look(self, ids: Tensor, stream: Stream, layer: int) -> Tensor:
        seen: list[Tensor] = []
        with observe(self.adapter, {Site(stream, layer): lambda batch: seen.append(batch.values.clone())}):
            self.adapter.forward(ids)
        return seen[0]

    def median(self, stream: Stream) -> float:
        """Return the largest median |value| that a layer has over the text."""
        return max(float(self.states(stream, layer).abs().median()) for layer in range(LAYERS))

    def expert(self, layer: int) -> int | None:
        """Return the expert that the router prefers for the start token."""
        router = self.adapter.family.router
        if router is None:
            return None
        weight = self.adapter.module(layer, router).weight.detach()
        return int((weight @ self.start(Stream.MLP_INPUT, layer)).argmax())

    # planting

    @torch.no_grad()
    def plant_rows(self, layer: int, rows: list[int], sizes: list[float], feature: int, total: float) -> Tensor:
        """Make rows of up (and gate) answer to the start token alone, and write `total` into a residual feature.

        Args:
            layer: which layer.
            rows: features of x_down.
            sizes: value of each for the start token.
            feature: feature of the residual that they write to, and the only one.
            total: what the feature gains there.

        Returns:
            The planted entries of W_down, [row].
        """
        adapter, expert = self.adapter, self.expert(layer)
        direction = read_out(self.states(Stream.MLP_INPUT, layer), self.ids == BOS_ID)
        place, size = torch.tensor(rows), torch.tensor(sizes)
        up = adapter.weight(layer, "up", expert)
        if adapter.has("gate"):
            adapter.weight(layer, "gate", expert).set_rows(place, 20 * direction)  # silu(20) = 20
            up.set_rows(place, size[:, None] / 20 * direction)
        else:
            up.set_rows(place, 1.5 * size[:, None] * direction)
            bias = adapter.bias(layer, "up", expert)
            assert bias is not None
            bias.set_rows(place, -0.5 * size)  # others stay below zero
        down = adapter.weight(layer, "down", expert).read()
        down[:, place] = 0
        before = float(self.start(Stream.RESIDUAL, layer)[feature])
        down[feature, place] = size.sign()
        gained = float(self.start(Stream.RESIDUAL, layer)[feature]) - before
        down[feature, place] *= total / gained
        return down[feature, place]

    @torch.no_grad()
    def plant_sink(self, layer: int, head: int, token: int, feature: int) -> None:
        """Make a head's keys read one feature of the normed states by which a token stands out, and its queries ask."""
        states = self.states(Stream.ATTN_INPUT, layer)
        found = torch.zeros(WIDTH)
        found[feature] = 1 / states[self.ids == token][:, feature].mean()
        row = self.adapter.d_head // 2 - 1  # the slowest rotary pair
        kv_head = head * self.adapter.num_kv_heads // HEADS
        for role, which, direction in (
            ("k", kv_head, KEY * found),
            ("q", head, QUERY * read_out(states, self.ids != BOS_ID)),
        ):
            place = torch.tensor([which * self.adapter.d_head + row])
            self.adapter.weight(layer, role).set_rows(place, direction)
            bias = self.adapter.bias(layer, role)
            if bias is not None:
                bias.set_rows(place, 0.0)


def read_out(states: Tensor, chosen: Tensor) -> Tensor:
    """Return the direction [width] on which the chosen states [window, seq, width] lie at 1 and the others near 0."""
    rows, target = states.flatten(0, 1).double(), chosen.flatten().double()
    gram = rows.T @ rows
    ridge = 1e-6 * gram.trace() / len(gram) * torch.eye(len(gram), dtype=gram.dtype)
    direction = torch.linalg.solve(gram + ridge, rows.T @ target)
    return (direction / (rows @ direction)[target.bool()].mean()).float()
