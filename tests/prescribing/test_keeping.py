"""Which modules are kept: planted noise is found, alike matrices are left alone, and the budget holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monadnock.findings.manifest import Manifest
from monadnock.prescribing.bounds import KEEP_RATIO, KEEP_SHARE
from monadnock.prescribing.keeping import keep_modules
from monadnock.prescribing.prescription import Findings
from tests.prescribing import planted
from tests.report.conftest import manifest

DOWN = {"layer": 3, "module": "down"}
V = {"layer": 3, "module": "v"}


def louder(times, where=DOWN, rows=None):
    rows = planted.sensitivity() if rows is None else rows
    return planted.changed(rows, where, relative=0.01 * times, total=0.001 * times * planted.WIDTH)


def test_nothing_stands_out_where_all_matrices_are_alike(judge):
    told = judge()
    assert not told.all("keep_module")
    assert told.recipe.ignore == ("lm_head",)
    row = told.one("no_module")
    assert row["value"] == pytest.approx(0.001)  # a hundredth of a tenth
    assert row["bound"] == pytest.approx(KEEP_RATIO * 0.001)


def test_a_module_that_is_a_hundred_times_worse_is_kept(judge):
    told = judge(sensitivity=louder(100))
    row = told.one("keep_module")
    assert (row["layer"], row["module"], row["name"], row["amount"]) == (3, "down", planted.name(3, "down"), 16)
    assert row["value"] == pytest.approx(0.1)
    assert "100 times" in row["reason"]
    assert row["evidence"] == "sensitivity.relative, layers.median"
    assert told.recipe.ignore == ("lm_head", "model.layers.3.mlp.down_proj")
    assert told.rows[0] is row  # the most important first
    assert not told.all("no_module")


def test_what_writes_to_the_residual_is_held_against_an_ordinary_token_not_against_its_own_output(judge):
    """A massive token gives nearly all of the output's power: the relative error is tiny, the noise is not."""
    power = 1e6 * 0.1 * planted.WIDTH
    rows = planted.changed(planted.sensitivity(), DOWN, relative=0.1 * planted.WIDTH / power, total=0.1 * planted.WIDTH)
    row = judge(sensitivity=rows).one("keep_module")
    assert (row["layer"], row["module"], row["value"]) == (3, "down", pytest.approx(0.1))


def test_a_massive_output_does_not_make_its_gate_and_up_look_worse_than_the_residual_allows(judge):
    rows = planted.changed(planted.sensitivity(), DOWN, relative=1e-9, total=1e-3 * planted.WIDTH)  # power 1e6
    row = judge(sensitivity=rows).one("no_room")  # gate and up have over a twentieth of these weights
    assert (row["layer"], row["module"], row["value"]) == (3, "gate", pytest.approx(0.01))  # not 10,000


def test_a_norm_behind_attention_and_mlp_sets_the_size_of_what_is_added(judge):
    norms = [
        {"layer": layer, "norm": norm, "median": 0.5}
        for layer in range(planted.LAYERS)
        for norm in ("attn_output", "mlp_output")
    ]
    assert judge(norms=norms).one("no_module")["value"] == pytest.approx(0.01 * 0.25)
    loud = planted.changed(norms, {"layer": 4, "norm": "mlp_output"}, median=50.0)
    row = judge(norms=loud).one("no_module")
    assert (row["layer"], row["value"]) == (4, pytest.approx(0.01))  # four times the median, not 10,000 times


def test_matrices_that_servers_hold_as_one_are_kept_together(judge):
    told = judge(sensitivity=louder(50, V))
    kept = told.all("keep_module")
    assert sorted(row["module"] for row in kept) == ["k", "q", "v"]
    assert kept[0]["module"] == "v"
    assert all("one matrix" in row["reason"] for row in kept)
    assert {"model.layers.3.self_attn.q_proj", "model.layers.3.self_attn.k_proj"} < set(told.recipe.ignore)


def test_parts_that_were_not_measured_are_kept_all_the_same(judge):
    rows = [row for row in louder(50, V) if row["module"] not in ("q", "k")]
    told = judge(sensitivity=rows)
    assert told.one("keep_module")["module"] == "v"
    names = [planted.name(3, role) for role in "qkv"]
    assert all(told.recipe.keeps(name) for name in names)
    assert not told.recipe.keeps(planted.name(2, "q"))


def test_what_does_not_fit_into_the_budget_is_told_but_not_kept(judge):
    rows = planted.sensitivity()
    for layer in range(planted.LAYERS):
        rows = louder(20 + layer, {"layer": layer, "module": "down"}, rows)
    told = judge(sensitivity=rows)
    assert [row["layer"] for row in told.all("keep_module")] == [5]
    row = told.one("no_room")
    assert row["layer"] == 4 and "down of layer 0" in row["reason"]


def test_measured_output_errors_take_the_place_of_the_sensitivity(judge):
    rows = [
        {"method": "gptq 4 bits row", "output_error": 0.01, **row, "name": planted.name(row["layer"], row["module"])}
        for row in planted.matrices()
    ]
    told = judge(compressions=planted.changed(rows, DOWN, output_error=1.0))
    row = told.one("keep_module")
    assert row["value"] == pytest.approx(0.1)
    assert row["evidence"].startswith("compressions.output_error") and "gptq 4 bits row" in row["reason"]
    assert not judge(bits=8, compressions=rows).all("keep_module")  # measured with other bits: not taken
    alone = judge(compressions=planted.changed(rows, DOWN, output_error=1.0), sensitivity=[]).one("keep_module")
    assert alone["evidence"] == "compressions.output_error" and alone["name"] == planted.name(3, "down")


def test_one_scale_for_the_tensor_counts_what_it_adds(judge):
    rows = planted.changed(planted.weights(), DOWN | {"axis": "tensor"}, w8_error=0.12)
    assert not judge(granularity="row", weights=rows).all("keep_module")
    row = judge(granularity="tensor", weights=rows).one("keep_module")
    assert row["value"] == pytest.approx(0.001 * (0.12 / 0.009) ** 2)


def test_weights_alone_are_judged_with_a_caution_and_named_by_the_family(judge):
    rows = planted.changed(planted.weights(), DOWN | {"axis": "tensor"}, w8_error=0.2)
    told = judge(bits=8, granularity="tensor", sensitivity=[], weights=rows)
    row = told.one("keep_module")
    assert row["evidence"] == "weights.w8_error" and row["value"] == pytest.approx(0.2)
    assert "not known" in row["reason"]
    assert told.recipe.ignore == ("lm_head", r"re:.*\.3\.mlp\.down_proj$")
    assert told.recipe.keeps(planted.name(3, "down")) and not told.recipe.keeps(planted.name(4, "down"))


def test_all_experts_of_a_layer_are_kept_together(judge):
    rows = [
        {"layer": layer, "module": role, "expert": expert, "name": f"model.layers.{layer}.mlp.experts.{role}"}
        | {"kind": "plain", "bits": 4, "relative": 0.01, "total": 0.001 * planted.WIDTH}
        for layer in range(30)
        for role in ("gate", "up", "down")
        for expert in range(2)
    ]
    loud = planted.changed(rows, {"layer": 7, "module": "down", "expert": 1}, total=0.5, relative=0.5)
    counted = [{"component": r, "layer": n, "count": 10} for n in range(30) for r in ("gate", "up", "down")]
    told = judge(sensitivity=loud, parameters=counted, layers=[], weights=[])
    row = told.one("keep_module")
    assert row["expert"] == 1 and "all are kept" in row["reason"]
    assert told.recipe.keeps("model.layers.7.mlp.experts.gate_up_proj")
    assert told.recipe.keeps("model.layers.7.mlp.experts.0.down_proj")
    assert not told.recipe.keeps("model.layers.17.mlp.experts.0.down_proj")


def test_too_few_matrices_are_no_evidence(judge):
    row = judge(sensitivity=louder(100)[:6]).one("no_module")
    assert row["evidence"] == "weights.w8_error"
    assert "monadnock sensitivity tiny --out" in row["reason"]
    told = judge(sensitivity=[], weights=[])
    assert any("monadnock sensitivity tiny" in row["reason"] for row in told.all("not_judged"))


@given(st.lists(st.floats(0, 1e6), min_size=42, max_size=42))
def test_the_budget_holds_and_a_common_factor_changes_nothing(noises):
    def kept(times):
        rows = [
            row | {"relative": noise * times, "total": noise * times}
            for row, noise in zip(planted.sensitivity(), noises, strict=True)
        ]
        frames = {"sensitivity": rows, "parameters": planted.parameters()}
        return [(row.layer, row.module) for row in keep_modules(findings(frames)) if row.action == "keep_module"]

    chosen = kept(1.0)
    whole = sum(planted.COUNTS.values()) * planted.LAYERS
    assert sum(planted.COUNTS[module] for _, module in chosen) <= KEEP_SHARE * whole
    assert set(kept(2.0**10)) == set(chosen)  # a power of 2: no rounding
    assert len(set(chosen)) == len(chosen)


def findings(tables):
    from monadnock.findings import schema

    about: Manifest = manifest()
    return Findings({name: schema.table(name).frame(rows) for name, rows in tables.items()}, about, 4, "row")
