"""Table parameters: every parameter once, in the component that its name says, as many as in the checkpoint."""

from collections import Counter

import pytest
from safetensors import safe_open

from monadnock.models import Adapter, Source
from monadnock.models.family import families
from monadnock.probes.parameters import tally
from tests.probes.conftest import TOKENIZER
from tests.tiny import tiny_model


def adapt(family: str, **changes) -> Adapter:
    return Adapter(tiny_model(family, **changes), TOKENIZER, Source(family, "object"))


def totals(rows: list[dict], by: str) -> Counter:
    counts: Counter = Counter()
    for row in rows:
        counts[row[by]] += row["count"]
    return counts


@pytest.mark.parametrize("family", families())
@pytest.mark.parametrize("tie", [True, False])
def test_counts_add_up_to_the_model(family, tie):
    adapter = adapt(family, tie_word_embeddings=tie)
    rows = tally(adapter)
    assert sum(row["count"] for row in rows) == sum(p.numel() for p in adapter.model.parameters())
    assert len({(row["component"], row["layer"]) for row in rows}) == len(rows)
    layers = totals(rows, "layer")
    for index, layer in enumerate(adapter.layers):
        assert layers[index] == sum(p.numel() for p in layer.parameters())
    (unembedding,) = [row["count"] for row in rows if row["component"] == "unembedding"]
    assert (unembedding == 0) == tie


# how the parameters of a component are called in the checkpoints
NAMES = {
    "llama": {
        "embedding": "embed_tokens",
        "q": "q_proj",
        "gate": "gate_proj",
        "down": "down_proj",
        "norm": "norm",
        "unembedding": "lm_head",
    },
    "gpt2": {"embedding": "wte", "position": "wpe", "up": "c_fc.weight", "bias": ".bias"},
    "mixtral": {"router": "mlp.gate.weight", "down": "experts.down_proj", "o": "o_proj"},
    "gpt_oss": {"other": "sinks", "router": "router.weight"},
    "qwen2": {"bias": "proj.bias"},
}


@pytest.mark.parametrize("family", NAMES)
def test_components_are_what_the_names_say(family):
    adapter = adapt(family, tie_word_embeddings=False)
    counts = totals(tally(adapter), "component")
    norms = {"ln_", "norm"}
    for component, part in NAMES[family].items():
        named = [
            p.numel()
            for name, p in adapter.model.named_parameters()
            if part in name and (component != "bias" or not any(norm in name for norm in norms))
        ]
        assert counts[component] == sum(named) > 0, component


def test_fused_weights_are_cut():
    counts = totals(tally(adapt("phi3")), "component")
    assert (counts["q"], counts["k"], counts["v"]) == (3 * 32 * 32, 3 * 16 * 32, 3 * 16 * 32)
    assert counts["gate"] == counts["up"] == counts["down"] == 3 * 32 * 48
    assert "other" not in counts


@pytest.mark.parametrize(("family", "tie"), [("llama", True), ("llama", False), ("gpt2", True), ("mixtral", False)])
def test_counts_equal_the_saved_checkpoint(family, tie, tmp_path):
    adapter = adapt(family, tie_word_embeddings=tie)
    adapter.model.save_pretrained(tmp_path)
    saved = 0
    for file in tmp_path.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                size = 1
                for width in tensors.get_slice(name).get_shape():
                    size *= width
                saved += size
    assert sum(row["count"] for row in tally(adapter)) == saved


def test_the_table_is_the_tally(scanned):
    case = scanned("llama")
    assert case.run.table("parameters").to_dicts() == tally(case.adapter)
    assert case.run.manifest.model.num_parameters == case.run.table("parameters")["count"].sum()
