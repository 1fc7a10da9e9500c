"""Outliers planted into tiny random models are found, where they are, and nothing else."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from monadnock import Run, scan
from monadnock.data import token_windows
from monadnock.models import Adapter
from monadnock.sites import Stream
from tests.planting import HEADS, INNER, LAYERS, MARKER, WIDTH, Patient, Reserved
from tests.words import BOS_ID, FIRST_WORD_ID, random_words, word_tokenizer, write_words

LENGTH, WINDOWS = 44, 2
MARKER_ID = FIRST_WORD_ID + MARKER
TOKENIZER = word_tokenizer()
FAMILIES = ("llama", "gpt2", "mixtral")
few = settings(deadline=None, derandomize=True, max_examples=10, phases=[Phase.generate])


@dataclass(frozen=True)
class Plan:
    """What is planted: rows of up and gate at one layer, a residual feature, its end, and a sink."""

    seed: int
    layer: int
    rows: list[int]  # the largest first
    signs: list[int]
    feature: int
    sign: int
    end: int | None  # the layer that takes the feature away again, through larger rows than those that made it
    end_row: int
    sink_layer: int
    head: int
    on_marker: bool  # the sink is the marker word, not the start token
    marker_at: int
    reserved: Reserved


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    layer = draw(st.integers(0, LAYERS - 2))
    end = draw(st.none() | st.integers(layer + 1, LAYERS - 1))
    features = draw(st.permutations(range(WIDTH)))
    rows = draw(st.lists(st.integers(0, INNER - 1), min_size=1, max_size=4, unique=True))
    on_marker = draw(st.booleans())
    sink_layer = draw(st.integers(0 if on_marker else layer + 1, LAYERS - 1 if end is None else end))
    assume(on_marker or sink_layer != end)  # such a sink carries what the end's row reads to other tokens
    return Plan(
        seed=draw(st.integers(0, 10**6)),
        layer=layer,
        rows=rows,
        signs=[draw(st.sampled_from([-1, 1])) for _ in rows],
        feature=features[0],
        sign=draw(st.sampled_from([-1, 1])),
        end=end,
        end_row=draw(st.integers(0, INNER - 1)),
        sink_layer=sink_layer,
        head=draw(st.integers(0, HEADS - 1)),
        on_marker=on_marker,
        marker_at=draw(st.integers(2, LENGTH // 2)),
        reserved=Reserved(*features[1:4]),
    )


@dataclass(frozen=True)
class Planted:
    """A model with outliers, and the numbers with which they were planted."""

    adapter: Adapter
    text: Path
    expert: int | None
    sizes: list[float]
    weights: list[float]  # of W_down
    total: float


def texts(folder: Path, plan: Plan) -> Path:
    """Write a text of which every window has the marker word once, at the same position."""
    words = ["w9" if word == f"w{MARKER}" else word for word in random_words(WINDOWS * (LENGTH - 1), plan.seed)]
    for window in range(WINDOWS):
        words[window * (LENGTH - 1) + plan.marker_at - 1] = f"w{MARKER}"
    return write_words(folder, words)


def patient(family: str, plan: Plan, folder: Path) -> tuple[Patient, Path]:
    text = texts(folder, plan)
    ids = token_windows(TOKENIZER, text=text, length=LENGTH, tokens=WINDOWS * LENGTH).ids
    return Patient(family, ids, plan.reserved, plan.seed), text


def plant(family: str, plan: Plan, folder: Path) -> Planted:
    subject, text = patient(family, plan, folder)
    largest = 4 * max(100.0, 1000 * subject.median(Stream.DOWN_PROJ_INPUT))
    total = plan.sign * 4 * max(100.0, 1000 * subject.median(Stream.RESIDUAL))
    sizes = [largest * 0.8**rank for rank in range(len(plan.rows))]
    signs = plan.signs if family != "gpt2" else [1] * len(sizes)  # GELU gives no large negative values
    expert = subject.expert(plan.layer)
    signed = [size * sign for size, sign in zip(sizes, signs, strict=True)]
    token, feature = (MARKER_ID, plan.reserved.marker) if plan.on_marker else (BOS_ID, plan.feature)
    early = plan.sink_layer <= plan.layer  # from the first layer up: what is planted changes the states above
    if early:
        subject.plant_sink(plan.sink_layer, plan.head, token, feature)
    weights = subject.plant_rows(plan.layer, plan.rows, signed, plan.feature, total)
    if not early:
        subject.plant_sink(plan.sink_layer, plan.head, token, feature)
    if plan.end is not None:
        gone = -float(subject.start(Stream.RESIDUAL, plan.end - 1)[plan.feature])
        subject.plant_rows(plan.end, [plan.end_row], [3 * largest], plan.feature, gone)
    return Planted(subject.adapter, text, expert, signed, weights.tolist(), total)


def full_scan(adapter: Adapter, text: Path, folder: Path) -> Run:
    return scan(
        adapter.model, TOKENIZER, out=folder / "run", text=text, tokens=WINDOWS * LENGTH, length=LENGTH, force=True
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planted")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("family", FAMILIES)
@few
@given(plans())
def test_what_was_planted_is_found_and_nothing_else(folder, family, plan):
    planted = plant(family, plan, folder)
    run = full_scan(planted.adapter, planted.text, folder)
    check_massive_weights(run, plan, planted)
    check_super_weights(run, plan, planted)
    check_lifecycle(run, plan, planted)
    check_activations(run, plan)
    check_sink(run, plan)
    check_making(run, plan, planted)
    check_what_the_sink_does(run, plan)
    check_consistency(run, plan)


def check_making(run: Run, plan: Plan, planted: Planted) -> None:
    """Trace, emergence and contributions: the FFN of the planted layer makes it, that of the end takes it away."""
    emergence = run.table("emergence")
    assert emergence["layer"].unique().to_list() == [plan.layer]
    inner = emergence.filter(state="intermediate")
    assert inner["feature"].to_list() == plan.rows
    assert inner["start"].to_list() == pytest.approx(planted.sizes, rel=0.01)
    assert (inner["ratio"] > 20).all()
    assert emergence.filter(state="output")["feature"].to_list() == [plan.feature]
    trace = run.table("trace").filter(layer=plan.layer).sort("step")
    largest = dict(trace.select("state", "top1").iter_rows())
    where = dict(trace.select("state", "feature").iter_rows())
    assert (where["down_proj_input"], where["mlp_output"], where["residual"]) == (plan.rows[0], *[plan.feature] * 2)
    assert largest["middle"] < 0.01 * largest["mlp_output"]
    parts = run.table("contributions").sort("layer")
    assert parts["feature"].unique().to_list() == [plan.feature]
    sums = parts["before"] + parts["attention"] + parts["mlp"]
    assert sums.to_list() == pytest.approx(parts["after"].to_list(), rel=1e-4, abs=0.1)
    made = parts.filter(pl.col("mlp").abs() > 0.5 * abs(planted.total))
    assert made["layer"].to_list() == [plan.layer] + ([] if plan.end is None else [plan.end])
    assert made["mlp"][0] == pytest.approx(planted.total, rel=0.05)
    if plan.end is not None:
        assert made["mlp"][1] == pytest.approx(-planted.total, rel=0.1)


def check_what_the_sink_does(run: Run, plan: Plan) -> None:
    """Spread, rotary and scaling: the planted dimension aligns queries with the key, and only that head is scaled."""
    spread = run.table("spread")
    assert set(spread.select("layer", "head").iter_rows()) == {(plan.sink_layer, plan.head)}
    first = spread.filter(rank=1).row(0, named=True)
    assert first["dimension"] == WIDTH // HEADS // 2 - 1
    assert first["share"] > 0.5
    assert first["sink_product"] > 5
    scaling = run.table("scaling")
    (scaled,) = scaling.filter(pl.col("kind") != "none").to_dicts()
    assert (scaled["layer"], scaled["head"], scaled["kind"]) == (plan.sink_layer, plan.head, "key")
    assert scaled["sink_keys"] == 1
    assert scaling.filter(kind="none")["std"].max() < 1e-6
    sink = run.table("heads").filter("sink").row(0, named=True)
    assert scaled["mean"] == pytest.approx(1 - sink["sink_mass"] * (LENGTH - sink["sink_position"]) / LENGTH, abs=1e-4)
    rotary = run.table("rotary").filter(layer=plan.sink_layer, head=plan.head)
    if rotary.height:
        gained = rotary.with_columns(gain=pl.col("sink_contribution") - pl.col("mean_contribution"))
        assert gained.sort("gain")["feature"][-1] == WIDTH // HEADS // 2 - 1
        others = run.table("rotary").filter((pl.col("layer") != plan.sink_layer) | (pl.col("head") != plan.head))
        assert others["sink_contribution"].null_count() == others.height


def check_consistency(run: Run, plan: Plan) -> None:
    """The planted rows and feature are where the massive entries are; the sink only where it is on the start token."""
    table = run.table("consistency").filter(pl.col("criterion").str.contains("sun2024"))
    share = {row["outlier_1"] + row["layers"]: row["consistency"] for row in table.to_dicts()}
    made = 1 if plan.end is None else 0.5  # at the end x_down is massive and h no longer is
    assert share["activation outliers in x_downsame"] == pytest.approx(100 * made)
    layers = list(range(plan.layer, plan.end or LAYERS))
    hit = plan.sink_layer in layers and not plan.on_marker
    assert share["activation outliers in hsame"] == pytest.approx(100 * hit / (len(layers) * HEADS))


def check_massive_weights(run: Run, plan: Plan, planted: Planted) -> None:
    table = run.table("massive_weights")
    assert table["layer"].unique().to_list() == [plan.layer]
    assert table["expert"].unique().to_list() == [planted.expert]
    massive = table.filter("massive").sort("rank")
    assert massive["feature"].to_list() == plan.rows
    assert massive["rank"].to_list() == list(range(1, len(plan.rows) + 1))
    assert massive["magnitude"].to_list() == pytest.approx([abs(size) for size in planted.sizes], rel=0.01)


def check_super_weights(run: Run, plan: Plan, planted: Planted) -> None:
    table = run.table("super_weights")
    assert table["layer"].unique().to_list() == [plan.layer]
    assert table["expert"].unique().to_list() == [planted.expert]
    assert table["row"].unique().to_list() == [plan.feature]
    assert table["column"].to_list() == plan.rows  # of equal weights the one with the largest x_down counts most
    assert table["weight"].to_list() == pytest.approx(planted.weights, rel=1e-5)
    parts = [weight * size for weight, size in zip(planted.weights, planted.sizes, strict=True)]
    assert table["contribution"].to_list() == pytest.approx(parts, rel=0.01)


def check_lifecycle(run: Run, plan: Plan, planted: Planted) -> None:
    (life,) = run.table("lifecycles").to_dicts()
    assert life["feature"] == plan.feature
    assert (life["birth"], life["rise_layer"], life["death"]) == (plan.layer, plan.layer, plan.end)
    assert life["massive"]
    assert plan.layer <= life["peak_layer"] < (plan.end or LAYERS)
    assert life["peak_value"] == pytest.approx(planted.total, rel=0.05)
    if plan.end is not None:
        assert life["fall_layer"] == plan.end


def check_activations(run: Run, plan: Plan) -> None:
    """Massive entries: only the start token's, in the planted feature while it lives and in the planted rows."""
    massive = run.table("activations").filter(pl.col("criterion").str.contains("sun2024"))
    assert set(massive["position"]) == {0}
    assert set(massive["token"]) == {"<s>"}
    places = set(massive.select("stream", "layer", "feature").iter_rows())
    alive = range(plan.layer, plan.end or LAYERS)
    expected = {("residual", layer, plan.feature) for layer in alive}
    expected |= {("down_proj_input", plan.layer, row) for row in plan.rows}
    if plan.end is not None:
        expected.add(("down_proj_input", plan.end, plan.end_row))
    assert places == expected
    assert massive.filter(stream="residual").height == WINDOWS * len(alive)


def check_sink(run: Run, plan: Plan) -> None:
    heads = run.table("heads")
    (sink,) = heads.filter("sink").to_dicts()
    assert (sink["layer"], sink["head"]) == (plan.sink_layer, plan.head)
    assert sink["sink_position"] == (plan.marker_at if plan.on_marker else 0)
    assert sink["sink_token_class"] == ("other" if plan.on_marker else "start")
    assert sink["sink_mass"] > 0.8
    assert heads.height == LAYERS * HEADS


@pytest.mark.parametrize("family", FAMILIES)
@settings(few, max_examples=3)
@given(plans())
def test_a_clean_model_has_none(folder, family, plan):
    subject, text = patient(family, plan, folder)
    run = full_scan(subject.adapter, text, folder)
    assert not run.table("massive_weights")["massive"].any()
    assert not run.table("heads")["sink"].any()
    assert run.table("activations")["criterion"].null_count() == run.table("activations").height
    assert not run.table("norm_gains")["massive_feature"].any()
    for table in ("super_weights", "lifecycles", "nonfinite"):
        assert run.table(table).height == 0


def test_without_the_planted_rows_all_of_it_is_gone(folder):
    reserved = Reserved(0, 1, 2)
    plan = Plan(3, 1, [40, 2], [1, -1], 9, -1, None, 0, 2, 3, False, 5, reserved)
    planted = plant("llama", plan, folder)
    check_sink(full_scan(planted.adapter, planted.text, folder), plan)
    for role in ("gate", "up"):
        planted.adapter.weight(plan.layer, role).set_rows(torch.tensor(plan.rows), 0.0)
    run = full_scan(planted.adapter, planted.text, folder)
    assert not run.table("massive_weights")["massive"].any()
    assert run.table("lifecycles").height == run.table("super_weights").height == 0
    head = run.table("heads").row(by_predicate=(pl.col("layer") == 2) & (pl.col("head") == 3), named=True)
    assert head["first_key_mass"] < 0.1  # its keys read the massive feature
