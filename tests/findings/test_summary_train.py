"""Fine-tunings in sentences: seeds are taken together, and nothing is said of what was not measured."""

import pytest

from monadnock.findings import table
from monadnock.findings.summary_train import finetuning, robustness
from tests.report.conftest import manifest
from tests.report.train_rows import about


def of(name, rows):
    return {name: table(name).frame(rows)}


def test_seeds_are_a_mean_and_other_settings_are_beside_them():
    rows = [
        {"name": f"{kind}, seed {seed}", "method": "lora", "seed": seed, "before": 2.0 + seed, "after": after + seed}
        for kind, after in (("lora", 1.0), ("lora, macdrop step 0.8 massive", 1.5))
        for seed in (0, 1)
    ]
    assert finetuning(manifest(), of("finetunings", rows)) == (
        "the loss of answers that were held back goes with lora from 2.5 to 1.5 (mean of 2 seeds) and lora, macdrop "
        "step 0.8 massive from 2.5 to 2 (mean of 2 seeds)."
    )


@pytest.mark.parametrize("value", [float("nan"), None])
def test_perplexity_under_the_most_rows_is_told_and_broken_values_are_not(value):
    rows = [
        about(place) | {"zeroed": count, "order": order, "metric": "perplexity", "text": "t", "base": 9.0 * count,
                        "value": 10.0 * count + place}
        for place in (0, 1) for count in (2, 3) for order in ("merged", "base")
    ]  # fmt: skip
    said = robustness(manifest(), of("robustness", rows))
    assert said == (
        "with 3 massive rows set to zero, perplexity is 27 without adapter, 30 with lora and 31 with lora, macdrop "
        "step 0.8 massive."
    )
    assert robustness(manifest(), of("robustness", [row | {"value": value} for row in rows])) == ""
    assert finetuning(manifest(), of("finetunings", [])) == robustness(manifest(), of("robustness", [])) == ""
