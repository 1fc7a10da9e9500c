"""MacDrop on SmolLM2: the published rows are found without being named, and the model is given back."""

import json

import pytest
import torch

from monadnock.training import finetune

pytestmark = pytest.mark.real
EXAMPLES = [
    {"instruction": "Name three colours.", "output": "Red, green and blue."},
    {"instruction": "What is the opposite of hot?", "output": "Cold."},
    {"instruction": "Add the numbers.", "input": "3 and 4", "output": "3 + 4 = 7."},
]


def test_an_adapter_is_trained_with_the_massive_rows_masked(smollm2, tmp_path):
    data = tmp_path / "data.json"
    data.write_text(json.dumps(EXAMPLES))
    before = {name: value.clone() for name, value in smollm2.model.state_dict().items()}
    how = {"batch": 1, "accumulation": 1, "epochs": 1, "macdrop": True, "rank": 4}
    run = finetune(smollm2, data=data, out=tmp_path / "run", progress=False, **how)
    after = smollm2.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    steps = run.table("finetuning_steps")
    assert steps["p"].to_list() == pytest.approx([0.8 * (1 - t / 2) for t in (1, 2)])
    assert steps["loss"].is_finite().all()
    massive = run.table("massive_weights").sort("rank")
    assert massive["layer"][0] == 11 and massive["feature"][:2].to_list() == [1229, 1487]
