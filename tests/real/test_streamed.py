"""What a scan streams equals what transformers itself gives back when it stores everything."""

import polars as pl
import pytest
import torch

from monadnock.data import token_windows
from monadnock.scanning import scan

pytestmark = pytest.mark.real

LENGTH = 128


@pytest.fixture(scope="module")
def short(smollm2, tmp_path_factory):
    """Return a scan over one window of 128 tokens, without the weights."""
    probes = ["activations", "attention"]
    return scan(smollm2, tokens=LENGTH, length=LENGTH, probes=probes, out=tmp_path_factory.mktemp("short") / "run")


@pytest.fixture(scope="module")
def stored(smollm2):
    """Return hidden states [layer, position, feature] and attentions [layer, head, query, key] of an eager run."""
    ids = token_windows(smollm2.tokenizer, tokens=LENGTH, length=LENGTH).ids
    last = []
    hook = smollm2.model.model.layers[-1].register_forward_hook(lambda module, args, out: last.append(out))
    before = smollm2.config._attn_implementation
    smollm2.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            output = smollm2.model(ids, output_hidden_states=True, output_attentions=True, use_cache=False)
    finally:
        hook.remove()
        smollm2.model.set_attn_implementation(before)
    # the last of transformers' hidden states is already normed: the last layer's own output stands in for it
    last_layer = last[0][0] if isinstance(last[0], tuple) else last[0]
    states = torch.stack([*(h[0] for h in output.hidden_states[1:-1]), last_layer.reshape(LENGTH, -1)])
    return states.double(), torch.stack([a[0] for a in output.attentions]).double()


def close(frame, expected, rel=1e-3, absolute=1e-5):
    assert torch.tensor(frame.to_list(), dtype=torch.float64).numpy() == pytest.approx(
        expected.numpy(), rel=rel, abs=absolute
    )


def test_hidden_states(short, stored):
    states, _ = stored
    layers = short.table("layers").filter(pl.col("stream") == "residual").sort("layer")
    sizes = states.flatten(1).abs()
    top = sizes.topk(3).values
    for rank in range(3):
        close(layers[f"top{rank + 1}"], top[:, rank])
    close(layers["mean_abs"], sizes.mean(1))
    close(layers["median"], sizes.median(1).values, rel=5e-3)  # a log histogram: at most 0.4 %
    close(layers["rms"], sizes.square().mean(1).sqrt())
    centred = states.flatten(1) - states.flatten(1).mean(1, keepdim=True)
    close(layers["kurtosis"], centred.pow(4).mean(1) / centred.square().mean(1).square(), rel=5e-3)
    assert layers["num_outliers"].to_list() == (sizes > 1000 * sizes.mean(1, keepdim=True)).sum(1).tolist()


def test_the_largest_entries(short, stored):
    states, _ = stored
    found = short.table("activations").filter(pl.col("stream") == "residual")
    assert found["layer"].n_unique() == 30
    for row in found.iter_rows(named=True):
        value = states[row["layer"], row["position"], row["feature"]]
        assert row["value"] == pytest.approx(float(value), rel=1e-3)
        assert row["rank"] == 1 + int((states[row["layer"]].abs() > value.abs() * (1 + 1e-5)).sum())


def test_heads(short, stored):
    _, probs = stored
    heads = short.table("heads").sort("layer", "head")
    flat = probs.flatten(0, 1)  # [layer * head, query, key]
    query, key = torch.arange(LENGTH)[:, None], torch.arange(LENGTH)
    close(heads["first_key_mass"], flat[:, :, 0].mean(1))
    close(heads["self_mass"], flat.diagonal(dim1=1, dim2=2).mean(1))
    close(heads["previous_mass"], flat.diagonal(-1, dim1=1, dim2=2).sum(1) / LENGTH)
    close(heads["local_mass"], (flat * (query - key < 8)).sum((1, 2)) / LENGTH)
    close(heads["mean_distance"], (flat * (query - key)).sum((1, 2)) / LENGTH)
    close(heads["entropy"], torch.special.entr(flat[:, 4::8]).sum(2).mean(1), absolute=1e-4)
    seen = LENGTH - key
    normalized = (flat.sum(1) / seen).where(seen >= LENGTH / 4, -1.0)
    close(heads["sink_mass"], normalized.amax(1))
    assert heads["sink"].to_list() == (normalized.amax(1) > 0.3).tolist()
    clear = normalized.topk(2).values.diff().abs()[:, 0] > 1e-4  # no two keys that rounding could swap
    at = torch.tensor(heads["sink_position"].to_list())
    assert torch.equal(at[clear], normalized.argmax(1)[clear])


def test_keys(short, stored):
    _, probs = stored
    cumulative = torch.cat([probs, probs.mean(1, keepdim=True)], 1).sum(2)  # [layer, head + mean, key]
    rows = short.table("attention")
    assert rows.filter(pl.col("head").is_null())["layer"].n_unique() == 30
    for row in rows.iter_rows(named=True):
        head = 9 if row["head"] is None else row["head"]
        score = float(cumulative[row["layer"], head, row["position"]])
        assert row["num_queries"] == LENGTH - row["position"]
        assert row["cumulative"] == pytest.approx(score, rel=1e-3)
        assert row["normalized"] == pytest.approx(score / row["num_queries"], rel=1e-3)
    largest = rows.group_by("layer", "head").agg(pl.col("cumulative").max())
    for layer, head, score in largest.iter_rows():
        assert score == pytest.approx(float(cumulative[layer, 9 if head is None else head].max()), rel=1e-3)
