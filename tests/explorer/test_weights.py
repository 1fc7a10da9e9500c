"""What is read of a map: the names, the arrays, and what rounding costs."""

import numpy as np
import pytest
import torch

from monadnock.errors import MonadnockError
from monadnock.explorer.weights import check_names, map_names, read_weights
from monadnock.findings import Run
from monadnock.sensitivity.loss import Factors, squared_errors
from monadnock.sensitivity.mapping import map_tensors
from tests.explorer import planted
from tests.report.conftest import manifest


@pytest.mark.parametrize("name", ["map-002-q", *planted.odd_matrices()])
def test_rows_are_what_every_level_says(run, name):
    weights, _ = read_weights(run, name)
    size, error = weights.rows(0, len(weights.codes))
    found, _ = run.tensors(name)
    wanted = planted.sensitivities(found, weights.bits, weights.group)
    near = 1e-6 * np.abs(wanted["magnitude"]).max() ** 2
    np.testing.assert_allclose(size, wanted["magnitude"], rtol=1e-6)
    for kind in ("plain", "compensated"):
        np.testing.assert_allclose(error * found[kind], wanted[kind], rtol=1e-3, atol=near * found[kind].max())


@pytest.mark.parametrize(("bits", "group"), [(3, None), (2, 40)])
def test_a_measured_map_gives_the_sensitivities_of_its_weights(tmp_path, bits, group):
    weight = torch.randn(30, 90, generator=torch.Generator().manual_seed(0))
    factors = Factors(torch.rand(90).double() + 0.5, torch.rand(90).double() + 0.1)
    run = Run.write(tmp_path / "run", manifest(), {})
    run.add_tensors(
        "map-001-up", map_tensors(weight, factors, bits, group), planted.facts(1, "up", bits=bits, group=group or "")
    )
    weights, _ = read_weights(run, "map-001-up")
    _, error = weights.rows(0, 30)
    wanted = squared_errors(weight, bits, group).numpy()
    assert np.abs(np.sqrt(error) - np.sqrt(wanted)).max() < weights.step.max()


def test_names_are_those_of_maps(run):
    assert map_names(run) == ["map-000-down-003", "map-000-o", "map-001-up", "map-001-v", "map-002-q"]
    assert check_names(run, None) == map_names(run)
    assert check_names(run, ["map-002-q"]) == ["map-002-q"]
    with pytest.raises(MonadnockError, match=r"no map 'map-002-k': did you mean .*map-002-q"):
        check_names(run, ["map-002-k"])
    with pytest.raises(MonadnockError, match="no map 'other'"):
        read_weights(run, "other")


def test_a_run_without_maps_says_how_to_make_them(tmp_path):
    run = Run.write(tmp_path / "run", manifest(), {})
    with pytest.raises(MonadnockError, match=r"has no maps; make one with `monadnock sensitivity MODEL .*--map --out"):
        map_names(run)


def damaged(key, change):
    found = planted.arrays(planted.gaussian(4, 6))
    return found | {key: change(found[key])}


@pytest.mark.parametrize(
    "found",
    [
        damaged("scale", lambda each: each[:3]),
        damaged("plain", lambda each: each * np.float32("nan")),
        damaged("codes", lambda each: each.astype(np.float32)),
        damaged("codes", lambda each: each[:0]),
        {"codes": np.zeros((4, 6), np.int16)},
    ],
)
def test_a_damaged_map_is_told(tmp_path, found):
    run = Run.write(tmp_path / "run", manifest(), {})
    run.add_tensors("map-001-up", found, planted.facts(1, "up"))
    with pytest.raises(MonadnockError, match=r"map-001-up of .* is damaged .*measure again"):
        read_weights(run, "map-001-up")


@pytest.mark.parametrize("told", [{"bits": ""}, {"bits": "9"}, {"group": "0"}, {"layer": "?"}, {"axis": "row"}])
def test_facts_that_cannot_be_are_told(tmp_path, told):
    run = Run.write(tmp_path / "run", manifest(), {})
    run.add_tensors("map-001-up", planted.arrays(planted.gaussian(4, 6)), planted.facts(1, "up") | told)
    with pytest.raises(MonadnockError, match="is damaged"):
        read_weights(run, "map-001-up")
