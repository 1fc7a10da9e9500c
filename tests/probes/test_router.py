"""Table router: the softmax of the router's own logits, for the start token and over the text."""

import pytest
import torch

pytestmark = pytest.mark.usefixtures("one_thread")

PATHS = {"mixtral": ("model.layers.{}.mlp", "gate", 6), "gpt_oss": ("model.layers.{}.mlp", "router", 4)}


@pytest.mark.parametrize("family", PATHS)
def test_router(scanned, family):
    case = scanned(family)
    path, name, experts = PATHS[family]
    table = case.run.table("router")
    assert table.height == 2 * 3 * experts
    sums = table.group_by("layer", "input").sum()["probability"].to_list()
    assert sums == pytest.approx([1.0] * 6)
    for layer in range(3):
        block = path.format(layer)
        router = getattr(case.model.get_submodule(block), name)
        with torch.no_grad():
            logits = torch.nn.functional.linear(case.input_of(block), router.weight, getattr(router, "bias", None))
        probs = logits.double().softmax(-1)  # [window, seq, expert]
        for which, expected in (("text", probs.mean((0, 1))), ("start", probs[0, 0])):
            rows = table.filter(layer=layer, input=which).sort("expert")
            assert rows["expert"].to_list() == list(range(experts))
            assert rows["probability"].to_list() == pytest.approx(expected.tolist(), rel=1e-3)


def test_dense_models_have_an_empty_table(scanned):
    assert scanned("llama").run.table("router").height == 0
