"""Tables attention and heads against transformers' own attention probabilities."""

import math
from collections import Counter

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from monadnock.probes.attention import Attention, head_kind
from monadnock.sites import Site, Stream
from monadnock.stats import Attention as AttentionStat
from tests.probes.conftest import LENGTH, NUM_WINDOWS, TOKENIZER, Scanned, evidence_of
from tests.stats.cases import Causal, steady

pytestmark = pytest.mark.usefixtures("one_thread")

# plain; learned positions; soft-capped and sliding; learned sinks and sliding; sliding alone; its own probabilities
FAMILIES = ["llama", "gpt2", "gemma2", "gpt_oss", "mistral", "mpt"]
QUERY, KEY = torch.arange(LENGTH)[:, None], torch.arange(LENGTH)


@pytest.fixture(params=FAMILIES)
def case(request, scanned) -> Scanned:
    return scanned(request.param)


def probabilities(case: Scanned) -> list[Tensor]:
    """Return [window, head, query, key] (float64) of every layer."""
    return [probs.double() for probs in case.plain.attentions]


def sees(case: Scanned, layer: int) -> Tensor:
    """Return which keys each query may see, [query, key]."""
    config = case.model.config
    kinds = getattr(config, "layer_types", None)
    slides = kinds[layer] == "sliding_attention" if kinds else config.model_type == "mistral"
    reach = config.sliding_window if slides else LENGTH
    back = QUERY - KEY
    return (back >= 0) & (back < reach)


def near(tensor: Tensor):
    return pytest.approx(tensor.tolist(), rel=1e-3, abs=1e-5)


def test_heads(case):
    table = case.run.table("heads")
    assert table.select("layer", "head").rows() == [(layer, head) for layer in range(3) for head in range(4)]
    for layer, probs in enumerate(probabilities(case)):
        rows = table.filter(layer=layer)
        assert not probs[:, :, ~sees(case, layer)].any()
        assert rows["first_key_mass"].to_list() == near(probs[..., 0].mean((0, 2)))
        assert rows["self_mass"].to_list() == near(probs.diagonal(dim1=2, dim2=3).sum(-1).mean(0) / LENGTH)
        previous = probs.diagonal(-1, dim1=2, dim2=3).sum(-1).mean(0) / LENGTH
        assert rows["previous_mass"].to_list() == near(previous)
        assert rows["local_mass"].to_list() == near((probs * (QUERY - KEY < 8)).sum((2, 3)).mean(0) / LENGTH)
        assert rows["mean_distance"].to_list() == near((probs * (QUERY - KEY)).sum((2, 3)).mean(0) / LENGTH)
        entropy = -(probs * probs.clamp(min=1e-300).log()).sum(3)[:, :, 4::8].mean((0, 2))
        assert rows["entropy"].to_list() == near(entropy)
        assert rows["num_outliers"].sum() == 0


def alpha(case: Scanned, layer: int, probs: Tensor) -> Tensor:
    """Return the normalised scores [window, head, key], -1 for keys that too few queries see."""
    seen = sees(case, layer).sum(0)
    return torch.where(seen >= seen.max() / 4, probs.sum(2) / seen, -1.0)


def test_sinks(case):
    for layer, probs in enumerate(probabilities(case)):
        scores = alpha(case, layer, probs)
        rows = case.run.table("heads").filter(layer=layer)
        mass, position = scores.max(2)
        assert rows["sink_mass"].to_list() == near(mass.mean(0))
        assert rows["sink"].to_list() == (mass.mean(0) > 0.3).tolist()
        for head, row in enumerate(rows.iter_rows(named=True)):
            places = Counter(position[:, head].tolist())
            (most, count), *_ = places.most_common()
            assert row["sink_position"] == (most if count > NUM_WINDOWS / 2 else None)
            expected = head_kind(row["sink_mass"], row["previous_mass"], row["self_mass"], row["local_mass"])
            assert row["kind"] == expected


def test_keys(case):
    table = case.run.table("attention")
    for layer, probs in enumerate(probabilities(case)):
        seen = sees(case, layer).sum(0)
        scores = torch.cat([probs.sum(2), probs.sum(2).mean(1, keepdim=True)], dim=1)  # [window, head + mean, key]
        shares = torch.where(seen >= seen.max() / 4, scores / seen, -1.0)
        for window in range(NUM_WINDOWS):
            for head in range(5):
                which = pl.col("head").is_null() if head == 4 else pl.col("head") == head
                rows = table.filter(which, layer=layer, sequence=window)
                assert 2 <= rows.height <= 3
                exact = scores[window, head]
                assert rows["cumulative"].to_list() == near(exact[rows["position"].to_list()])
                assert rows["cumulative"].to_list()[:2] == near(exact.topk(2).values)
                assert rows["num_queries"].to_list() == seen[rows["position"].to_list()].tolist()
                assert rows["normalized"].to_list() == near((exact / seen)[rows["position"].to_list()])
                best = int(shares[window, head].argmax())
                assert best in rows["position"].to_list()
                ids = case.ids[window, rows["position"].to_list()].tolist()
                assert rows["token_id"].to_list() == ids
                assert rows["token"].to_list() == TOKENIZER.convert_ids_to_tokens(ids)


masses = st.floats(0, 1)


@steady
@given(masses, masses, masses, masses)
def test_head_kind(sink, previous, own, local):
    kind = head_kind(sink, previous, own, local)
    largest = max(sink, previous, own)
    if largest > 0.3:
        assert {"sink": sink, "previous": previous, "self": own}[kind] == largest
    else:
        assert kind == ("local" if local > 0.5 else "broad")


@pytest.mark.parametrize(
    ("masses", "kind"),
    [
        ((0.31, 0.1, 0.1, 0.9), "sink"),
        ((0.29, 0.1, 0.1, 0.49), "broad"),
        ((0.29, 0.29, 0.1, 0.51), "local"),
        ((0.31, 0.32, 0.1, 0.9), "previous"),
        ((0.1, 0.1, 0.31, 0.9), "self"),
    ],
)
def test_head_kind_at_its_bounds(masses, kind):
    assert head_kind(*masses) == kind


def head_of(adapter, rows: list[list[float]]) -> dict:
    """Return the row of table `heads` for a head with these probabilities, [query, key]."""
    stat = AttentionStat(2)
    for block in Causal(torch.tensor([rows], dtype=torch.float64), None).blocks([33]):
        stat.update(block, 1)
    observed = {("text", Site(Stream.ATTN_PROBS, layer), AttentionStat): stat for layer in range(2)}
    tables = Attention().findings(evidence_of(adapter, observed, len(rows)))
    (head,) = [row for row in tables["heads"] if row["layer"] == 0]
    return head


@pytest.mark.parametrize(
    ("back", "kind"), [(None, "sink"), (0, "self"), (1, "previous"), (range(8), "local"), (range(100), "broad")]
)
def test_kinds_of_hand_made_heads(tiny_adapter, back, kind):
    """Heads that look only at the first key, at themselves, one back, at the last eight, and everywhere."""
    rows = []
    for query in range(100):
        steps = [query] if back is None else [back] if isinstance(back, int) else back
        keys = {max(0, query - step) for step in steps}
        rows.append([1 / len(keys) if key in keys else 0.0 for key in range(100)])
    head = head_of(tiny_adapter, rows)
    assert head["kind"] == kind
    assert head["sink"] == (kind == "sink")
    assert not math.isnan(head["entropy"])


@pytest.mark.parametrize(("mass", "sink"), [(0.28, False), (0.32, True)])
def test_a_sink_gets_more_than_three_tenths(tiny_adapter, mass, sink):
    rows = [[mass] + [(1 - mass) / max(query, 1) * (key <= query) for key in range(1, 100)] for query in range(100)]
    head = head_of(tiny_adapter, rows)
    assert head["sink_mass"] == pytest.approx(mass)
    assert (head["sink"], head["kind"]) == (sink, "sink" if sink else "broad")
    assert head["first_key_mass"] == pytest.approx(mass)
