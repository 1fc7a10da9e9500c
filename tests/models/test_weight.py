"""Cutting a fused weight: the parts put together are the weight again, and writing to a part writes to the weight."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from monadnock.models.weight import cut


@dataclass(frozen=True)
class Layout:
    """A fused weight of random sizes."""

    how: str
    kv: int
    per_kv: int
    d_head: int
    width: int  # input width; 0 for a bias
    transposed: bool

    @property
    def roles(self) -> tuple[str, ...]:
        return ("gate", "up") if self.how in ("halves", "pairs") else ("q", "k", "v")

    def store(self) -> Tensor:
        """Make the stored weight, every number different."""
        heads = self.kv * self.per_kv
        out = 2 * heads * self.d_head if len(self.roles) == 2 else (heads + 2 * self.kv) * self.d_head
        if not self.width:
            return torch.arange(float(out))
        matrix = torch.arange(float(out * self.width)).reshape(out, self.width)
        return matrix.T.contiguous() if self.transposed else matrix

    def part(self, stored: Tensor, role: str):
        heads = self.kv * self.per_kv
        return cut(stored, role, self.how, num_heads=heads, d_head=self.d_head, transposed=self.transposed)

    def together(self, parts: dict[str, Tensor]) -> Tensor:
        """Fuse parts [out, in] the way the layout's description says."""
        if self.how in ("rows", "halves"):
            return torch.cat([parts[role] for role in self.roles])
        if self.how == "pairs":
            return torch.stack([parts["gate"], parts["up"]], dim=1).flatten(0, 1)
        rows: list[Tensor] = []
        for head in range(self.kv):
            rows.extend(parts["q"][head * self.per_kv * self.d_head : (head + 1) * self.per_kv * self.d_head])
            rows.extend(parts["k"][head * self.d_head : (head + 1) * self.d_head])
            rows.extend(parts["v"][head * self.d_head : (head + 1) * self.d_head])
        return torch.stack(rows)


small = st.integers(1, 4)
layouts = st.builds(
    Layout, st.sampled_from(["rows", "heads", "halves", "pairs"]), small, small, small, st.integers(0, 3), st.booleans()
)


@settings(deadline=None)
@given(layouts)
def test_parts_put_together_are_the_weight(layout):
    stored = layout.store()
    matrix = stored.T if layout.transposed and layout.width else stored
    parts = {role: layout.part(stored, role).read() for role in layout.roles}
    assert torch.equal(layout.together(parts), matrix)


@settings(deadline=None)
@given(layouts, st.data())
def test_rows_that_were_set_are_read(layout, data):
    stored = layout.store()
    clean = stored.clone()
    role = data.draw(st.sampled_from(layout.roles))
    view = layout.part(stored, role)
    before = view.read().clone()
    chosen = data.draw(st.sets(st.integers(0, len(before) - 1), min_size=1))
    rows = torch.tensor(sorted(chosen))
    view.set_rows(rows, -before[rows] - 1)
    expected = before.clone()
    expected[rows] = -before[rows] - 1
    assert torch.equal(view.read(), expected)
    assert torch.equal(layout.part(stored, role).read(), expected)
    assert int((stored != clean).sum()) == expected[rows].numel(), "other rows were changed"
    view.set_rows(rows, before[rows])
    assert torch.equal(stored, clean)


@settings(deadline=None)
@given(layouts)
def test_a_part_shares_memory_with_the_weight(layout):
    stored = layout.store()
    for role in layout.roles:
        part = layout.part(stored, role).strided
        assert part.untyped_storage().data_ptr() == stored.untyped_storage().data_ptr()


@pytest.mark.parametrize("transposed", [False, True])
def test_a_plain_weight_is_seen_as_out_in(transposed):
    stored = torch.arange(6.0).reshape(2, 3)
    view = cut(stored, "down", "", num_heads=0, d_head=0, transposed=transposed)
    assert torch.equal(view.read(), stored.T if transposed else stored)
    view.set_rows(torch.tensor([1]), 9.0)
    assert (stored[:, 1] if transposed else stored[1]).unique().tolist() == [9.0]


def test_writing_to_a_parameter_needs_no_no_grad():
    parameter = torch.nn.Parameter(torch.zeros(6, 2))
    with torch.enable_grad():
        cut(parameter, "up", "pairs", num_heads=0, d_head=0, transposed=False).set_rows(torch.tensor([1]), 5.0)
    assert parameter.detach()[3].tolist() == [5.0, 5.0] and int((parameter != 0).sum()) == 2


def test_an_unknown_cut_is_refused():
    with pytest.raises(ValueError, match="unknown cut 'diagonal'"):
        cut(torch.zeros(6, 2), "q", "diagonal", num_heads=2, d_head=1, transposed=False)
