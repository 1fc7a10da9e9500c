"""Tables layers, features and activations against transformers' own hidden states, and the two criteria."""

import math

import polars as pl
import pytest
import torch
from torch import Tensor

from monadnock.probes.activations import Activations
from monadnock.sites import Site, Stream
from monadnock.stats import Magnitude
from monadnock.stats.histogram import RELATIVE_ERROR
from tests.probes.conftest import LENGTH, NUM_WINDOWS, TOKENIZER, Scanned, evidence_of
from tests.stats.cases import Rows

DOWN = {"llama": "model.layers.{}.mlp.down_proj", "gpt2": "transformer.h.{}.mlp.c_proj"}
DOWN |= dict.fromkeys(("gemma2", "olmo2", "phi3"), DOWN["llama"])
LAST = {"gpt2": "transformer.h.2"}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=list(DOWN))
def family(request) -> str:
    return request.param


def states(case: Scanned, family: str, stream: str, layer: int) -> Tensor:
    """Return the states [window, seq, width] without monadnock's help."""
    if stream == "down_proj_input":
        return case.input_of(DOWN[family].format(layer))
    if layer == 2:  # the last hidden state of transformers has gone through the final norm
        return case.output_of(LAST.get(family, "model.layers.2"))
    return case.plain.hidden_states[layer + 1]


PLACES = [(stream, layer) for stream in ("residual", "down_proj_input") for layer in range(3)]


def at(frame: pl.DataFrame, stream: str, layer: int) -> pl.DataFrame:
    return frame.filter(stream=stream, layer=layer)


def near(value: float):
    return pytest.approx(value, rel=1e-4)


def test_layers(scanned, family):
    case = scanned(family)
    table = case.run.table("layers")
    assert table.height == len(PLACES)
    for stream, layer in PLACES:
        (row,) = at(table, stream, layer).to_dicts()
        size = states(case, family, stream, layer).double().abs().flatten(1)  # [window, entry]
        top = size.sort(dim=1, descending=True).values[:, :3].mean(0).tolist()
        assert [row["top1"], row["top2"], row["top3"]] == near(top)
        assert row["mean_abs"] == near(float(size.mean()))
        assert row["rms"] == near(float(size.square().mean().sqrt()))
        assert row["median"] == pytest.approx(float(size.median(dim=1).values.mean()), rel=RELATIVE_ERROR + 1e-4)
        signed = states(case, family, stream, layer).double()
        centred = signed - signed.mean()
        kurtosis = float(centred.pow(4).mean() / centred.square().mean() ** 2)
        assert row["kurtosis"] == pytest.approx(kurtosis, rel=1e-3)
        assert row["num_outliers"] == int((size > 1000 * size.mean(1, keepdim=True)).sum())


def test_features(scanned, family):
    case = scanned(family)
    for stream, layer in PLACES:
        table = at(case.run.table("features"), stream, layer)
        size = states(case, family, stream, layer).double().abs().flatten(0, 1)  # [token, feature]
        largest = size.amax(0)
        count = min(64, len(largest))
        assert table["feature"].n_unique() == table.height == count
        assert table["max_abs"].to_list() == near(largest.sort(descending=True).values[:count].tolist())
        assert table["max_abs"].to_list() == near(largest[table["feature"].to_list()].tolist())
        assert table["mean_abs"].to_list() == near(size.mean(0)[table["feature"].to_list()].tolist())


def test_the_largest_entries_with_their_tokens(scanned, family):
    case = scanned(family)
    for stream, layer in PLACES:
        for window in range(NUM_WINDOWS):
            table = at(case.run.table("activations"), stream, layer).filter(sequence=window).sort("rank")
            values = states(case, family, stream, layer)[window]
            assert table["rank"].to_list() == [1, 2, 3, 4, 5]
            assert table["expert"].null_count() == 5
            exact = values.abs().flatten().sort(descending=True).values[:5]
            assert table["value"].abs().to_list() == near(exact.tolist())
            for row in table.iter_rows(named=True):
                place = row["position"], row["feature"]
                assert row["value"] == near(float(values[place]))
                assert row["token_id"] == int(case.ids[window, row["position"]])
                assert row["token"] == TOKENIZER.convert_ids_to_tokens(row["token_id"])
                assert row["token_class"] == ("start" if row["position"] == 0 else "other")
                assert row["ratio_mean"] == near(abs(row["value"]) / float(values.double().abs().mean()))


def test_experts_are_named(scanned):
    """In a mixture the states of all chosen experts go in, each entry with its expert."""
    case = scanned("mixtral")
    experts = case.run.table("activations").filter(stream="down_proj_input")["expert"]
    assert set(experts) <= set(range(6)) and experts.n_unique() > 1
    for layer in range(3):
        block = case.model.model.layers[layer].mlp
        x = case.input_of(f"model.layers.{layer}.mlp").flatten(0, 1)
        with torch.no_grad():
            chosen = (x @ block.gate.weight.T).topk(2).indices
            inner = []
            for token, pair in zip(x, chosen, strict=True):
                gate, up = (block.experts.gate_up_proj[pair] @ token).chunk(2, dim=1)
                inner.append(torch.nn.functional.silu(gate) * up)
        size = torch.stack(inner).abs().unflatten(0, (NUM_WINDOWS, LENGTH)).flatten(1)
        (row,) = at(case.run.table("layers"), "down_proj_input", layer).to_dicts()
        assert row["top1"] == near(float(size.amax(1).mean()))
        assert row["mean_abs"] == near(float(size.mean()))
        for window in range(NUM_WINDOWS):
            rows = at(case.run.table("activations"), "down_proj_input", layer)
            (top,) = rows.filter(sequence=window, rank=1).to_dicts()
            token, feature = int(top["position"]) + window * LENGTH, top["feature"]
            slot = chosen[token].tolist().index(top["expert"])
            assert float(inner[token][slot, feature]) == near(top["value"])


def rows_of(adapter, *windows: Tensor) -> dict[str, list[dict]]:
    """Return the probe's tables for hand-made residual states of both layers."""
    observed = {}
    for layer in range(2):
        stat = Magnitude(2)
        for window, values in enumerate(windows):
            stat.update(Rows(values), window)
        observed["text", Site(Stream.RESIDUAL, layer), Magnitude] = stat
    return Activations(["residual"]).findings(evidence_of(adapter, observed))


@pytest.mark.parametrize(
    ("value", "rest", "criterion", "overflows"),
    [
        (99.0, 0.001, "an2025", False),  # 10,000 times the mean, but not large enough to be massive
        (101.0, 0.001, "an2025+sun2024", False),
        (12.4, 0.01, None, False),  # 947 times the mean of 4000 entries, itself included
        (14.3, 0.01, "an2025", False),  # 1054 times
        (900.0, 1.0, None, False),
        (-1100.0, 1.0, "sun2024", False),  # it lifts the mean, not the median
        (-70000.0, 1.0, "an2025+sun2024", True),
        (65504.0, 100.0, None, False),
    ],
)
def test_criteria(tiny_adapter, value, rest, criterion, overflows):
    values = torch.full((8, 500), rest)
    values[6, 123] = value
    first = rows_of(tiny_adapter, values, torch.ones(8, 500))["activations"][0]
    assert (first["position"], first["feature"], first["value"]) == (6, 123, pytest.approx(value))
    assert (first["token_id"], first["token"]) == (8, "w5")
    assert first["criterion"] == criterion
    assert first["overflows_float16"] == overflows


def test_every_entry_that_meets_a_criterion_is_listed_up_to_32(tiny_adapter):
    values = torch.full((8, 500), 0.5)
    values[:, 7] = 5000.0
    values[:2, 8] = 6000.0
    many = values.clone()
    many[:, 9:14] = 4000.0
    table = pl.DataFrame(rows_of(tiny_adapter, values, many)["activations"]).filter(layer=1)
    assert table.filter(sequence=0).height == 10 and table.filter(sequence=1).height == 32
    assert table.filter(sequence=0)["feature"].to_list() == [8] * 2 + [7] * 8


def test_states_that_are_all_zero(tiny_adapter):
    tables = rows_of(tiny_adapter, torch.zeros(8, 10), torch.zeros(8, 10))
    assert {row["criterion"] for row in tables["activations"]} == {None}
    assert {row["ratio_mean"] for row in tables["activations"]} == {None}
    assert tables["layers"][0]["top1"] == 0 and math.isnan(tables["layers"][0]["kurtosis"])


def test_nan_and_infinity_are_counted_per_layer(tiny_adapter):
    broken = torch.ones(8, 10)
    broken[1, 1], broken[2, 2] = math.nan, -math.inf
    tables = rows_of(tiny_adapter, broken, torch.ones(8, 10))
    rows = [(row["where"], row["layer"], row["name"], row["count"]) for row in tables["nonfinite"]]
    assert rows == [("residual", 0, "text", 2), ("residual", 1, "text", 2)]
    assert tables["layers"][0]["top1"] == 1
