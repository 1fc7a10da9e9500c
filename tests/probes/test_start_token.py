"""The start token alone: its states, the massive layer, lifecycles on hand-made curves, and norm gains."""

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from monadnock.models import Adapter, Source, observe
from monadnock.probes.start_token import ALIVE_RATIO, StartToken
from monadnock.sites import Site, Stream
from monadnock.stats import Magnitude, Snapshot, massive_layer
from monadnock.thresholds import SUN2024_RATIO
from tests.probes.conftest import NUM_WINDOWS, TOKENIZER, evidence_of
from tests.stats.cases import Rows, steady
from tests.tiny import tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

DENSE = ["llama", "gpt2", "gemma2", "mpt", "phi3"]


@pytest.mark.parametrize("family", [*DENSE, "mixtral", "gpt_oss"])
def test_the_start_token_alone_is_the_start_of_every_window(scanned, family):
    """No position sees a later one, so that its states in every window are those of the start pass."""
    case = scanned(family)
    table = case.run.table("start_states")
    for stream in (Stream.RESIDUAL, Stream.DOWN_PROJ_INPUT):
        for layer in range(3):
            rows = table.filter(stream=stream.value, layer=layer).sort("rank")
            assert rows["rank"].to_list() == list(range(1, 9))
            for window in range(NUM_WINDOWS):
                values = first_state(case.adapter, case.ids[window], stream, layer, rows["expert"][0])
                assert rows["value"].to_list() == pytest.approx(values[rows["feature"].to_list()].tolist(), rel=1e-3)
                exact = values.abs().sort(descending=True).values[:8]
                assert rows["value"].abs().to_list() == pytest.approx(exact.tolist(), rel=1e-3)


def first_state(adapter: Adapter, ids: Tensor, stream: Stream, layer: int, expert: int | None) -> Tensor:
    """Return the state [width] of position 0 in a window."""
    seen = []
    with observe(adapter, {Site(stream, layer): lambda batch: seen.append(batch)}):
        adapter.forward(ids)
    (batch,) = seen
    if expert is None:
        return batch.values[0]
    ((row,),) = ((batch.position == 0) & (batch.expert == expert)).nonzero().T.tolist()
    return batch.values[row]


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
def test_the_expert_is_the_one_that_the_router_prefers(scanned, family):
    case = scanned(family)
    states = case.run.table("start_states")
    assert states.filter(stream="residual")["expert"].null_count() == 3 * 8
    router = case.run.table("router").filter(input="start")
    layers = states.filter(stream="down_proj_input").select("layer", "expert").unique().sort("layer")
    best = router.sort("probability").group_by("layer").last().sort("layer")
    assert layers["expert"].to_list() == best["expert"].to_list()
    assert best["expert"].n_unique() > 1  # not always the first


def curve(*sizes: float) -> Tensor:
    """Return states [layer, 4] that have one large entry of the given size."""
    states = torch.zeros(len(sizes), 4)
    states[:, 1] = torch.tensor(sizes)
    return states


@pytest.mark.parametrize(
    ("residual", "inner", "layer"),
    [
        ([1, 900, 950, 940, 5], [1, 300, 2, 3, 900], 1),  # the last layer's is larger, but it takes away
        ([1, 2, 950, 940, 5], [1, 300, 290, 3, 4], 1),  # made before the peak
        ([1, -900, -950, -960, -970], [1, -300, 2, 3, 400], 4),  # the residual grows to the end
        ([7, 1, 1, 1, 1], [3, 9, 9, 9, 9], 0),
    ],
)
def test_massive_layer_is_cut_at_the_peak(residual, inner, layer):
    assert massive_layer(curve(*residual), curve(*inner)) == layer


curves = st.lists(st.lists(st.integers(-9, 9), min_size=3, max_size=3), min_size=1, max_size=8)


@steady
@given(curves, curves)
def test_massive_layer_by_definition(residual, inner):
    num = min(len(residual), len(inner))
    tops = [max(map(abs, row)) for row in residual[:num]]
    candidates = [max(map(abs, row)) for row in inner[: tops.index(max(tops)) + 1]]
    found = massive_layer(torch.tensor(residual[:num]).float(), torch.tensor(inner[:num]).float())
    assert found == candidates.index(max(candidates))


def lives(*curves: list[float], median: float = 1.0) -> list[dict]:
    """Return the lifecycles of residual features that follow the given curves over the layers."""
    layers = len(curves[0])
    adapter = Adapter(tiny_model("llama", num_hidden_layers=layers, intermediate_size=8), None, Source("t", "object"))
    observed = {}
    for layer in range(layers):
        for stream, values in (
            (Stream.RESIDUAL, torch.tensor([[curve[layer] for curve in curves]])),
            (Stream.DOWN_PROJ_INPUT, torch.ones(1, 8)),
        ):
            start, text = Snapshot(1), Magnitude(2)
            start.update(Rows(values.float()), 0)
            text.update(Rows(torch.full((5, 4), median)), 1)
            observed["start", Site(stream, layer), Snapshot] = start
            observed["text", Site(stream, layer), Magnitude] = text
    return StartToken().findings(evidence_of(adapter, observed))["lifecycles"]


def test_a_feature_that_lives_to_the_end():
    (life,) = lives([0, 90, 2000, 2500, 2400])
    assert life == {
        "feature": 0,
        "birth": 2,
        "death": None,
        "peak_layer": 3,
        "peak_value": 2500,
        "rise_layer": 2,
        "fall_layer": 4,  # it loses 100 there, and lives on
        "massive": True,
    }


def test_a_feature_of_two_stages():
    """As in SmolLM2: made, taken away, made again, and taken away in steps of which the last but one is the largest."""
    first, second = sorted(lives([0, -500, -400, 50, 0, 1100, 9000, 300, 0], [5.0] * 9), key=lambda row: row["birth"])
    assert (first["birth"], first["death"], first["rise_layer"], first["fall_layer"]) == (1, 3, 1, 3)
    assert (first["peak_layer"], first["peak_value"], first["massive"]) == (1, -500, False)
    assert (second["birth"], second["death"], second["rise_layer"], second["fall_layer"]) == (5, 8, 6, 7)
    assert (second["peak_layer"], second["peak_value"], second["massive"]) == (6, 9000, True)


def test_features_that_only_grow_have_no_fall():
    rows = lives([200, 300, 400], [0, 0, -5000])
    assert [row["feature"] for row in rows] == [1, 0]  # the larger first
    assert [row["fall_layer"] for row in rows] == [None, None]
    assert [row["rise_layer"] for row in rows] == [2, 0]


def test_alive_is_relative_to_the_median_too():
    assert ALIVE_RATIO == 100 and SUN2024_RATIO == 1000
    (life,) = lives([500, 1500, 15500], median=12.0)
    assert (life["birth"], life["massive"]) == (1, True)
    assert lives([99, 99, 99], median=0.01) == []


@steady
@given(st.lists(st.integers(-3000, 3000), min_size=1, max_size=5))
def test_lifecycles_by_definition(values):
    sizes = [abs(value) for value in values]
    expected, layer = [], 0
    while layer < len(values):
        if sizes[layer] <= 100:
            layer += 1
            continue
        death = next((later for later in range(layer, len(values)) if sizes[later] <= 100), None)
        stretch = range(layer, len(values) if death is None else death)
        until = min(stretch.stop + 1, len(values))  # the layer of death counts too
        gains = {at: sizes[at] - (sizes[at - 1] if at else 0) for at in range(layer, until)}
        lost = min(gains.values())
        expected.append(
            {
                "feature": 0,
                "birth": layer,
                "death": death,
                "peak_layer": max(stretch, key=lambda at: sizes[at]),
                "peak_value": max((values[at] for at in stretch), key=abs),
                "rise_layer": max(stretch, key=lambda at: gains[at]),
                "fall_layer": min(gains, key=lambda at: gains[at]) if lost < 0 else None,
                "massive": max(sizes[at] for at in stretch) > 1000,
            }
        )
        layer = stretch.stop
    found = lives(values)
    assert found == sorted(expected, key=lambda row: (-abs(row["peak_value"]), row["birth"]))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gemma3_text", "qwen3", "olmo2"])
def test_norm_gains(scanned, family):
    """Gains are weights, in Gemma 1 + weight; the four largest of every norm are listed."""
    case = scanned(family)
    offset = 1.0 if family.startswith("gemma") else 0.0
    path, final = ("post_attention_layernorm", "norm") if family != "gpt2" else ("ln_2", "ln_f")
    name = "mlp_input" if family in ("llama", "gpt2", "qwen3") else "attn_output"
    decoder = case.model.get_decoder()
    modules = {(None, "final"): getattr(decoder, final)}
    modules |= {(layer, name): getattr(block, path) for layer, block in enumerate(case.adapter.layers)}
    table, norms = case.run.table("norm_gains"), case.run.table("norms")
    for (layer, which), module in modules.items():
        weight = module.weight.detach() + offset
        here = pl.col("layer").eq_missing(layer) & (pl.col("norm") == which)
        rows = table.filter(here)
        assert not rows["massive_feature"].any()
        assert rows["gain"].to_list() == pytest.approx(weight[rows["feature"].to_list()].tolist())
        exact = weight.abs().sort(descending=True).values[:4]
        assert rows["gain"].abs().to_list() == pytest.approx(exact.tolist())
        assert rows["ratio"].to_list() == pytest.approx((exact / weight.abs().median()).tolist())
        (row,) = norms.filter(here).to_dicts()
        exact = [float(value) for value in (weight.mean(), weight.min(), weight.max())]
        assert [row["mean"], row["min"], row["max"]] == pytest.approx(exact)
        assert row["median"] == pytest.approx(float(weight.median()))
        assert row["num_negative"] == int((weight < 0).sum())
    assert set(norms["norm"]) == {*case.adapter.family.norms, "final"}


def test_the_gains_of_massive_features_are_listed():
    model = tiny_model("llama", num_hidden_layers=2)
    adapter = Adapter(model, TOKENIZER, Source("t", "object"))
    observed = {}
    smallest = int(model.model.layers[1].input_layernorm.weight.abs().argmin())
    for layer in range(2):
        for stream, width in ((Stream.RESIDUAL, 32), (Stream.DOWN_PROJ_INPUT, 48)):
            start, text = Snapshot(1), Magnitude(2)
            start.update(Rows(torch.eye(width)[smallest : smallest + 1] * (5000.0 if layer == 0 else 1.0)), 0)
            text.update(Rows(torch.ones(3, width)), 0)
            observed["start", Site(stream, layer), Snapshot] = start
            observed["text", Site(stream, layer), Magnitude] = text
    rows = StartToken().findings(evidence_of(adapter, observed))["norm_gains"]
    marked = [row for row in rows if row["massive_feature"]]
    assert {row["feature"] for row in marked} == {smallest}
    assert len(marked) == 2 * 2 + 1  # in every norm of every layer, and the final one
