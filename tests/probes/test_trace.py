"""The start token's trace: order, identities, half precision, and models whose states do not add up."""

import polars as pl
import pytest
import torch

from monadnock import scan
from monadnock.models import Adapter, Source
from tests.probes.conftest import TOKENIZER
from tests.tiny import tiny_model

PLAIN = ["before", "attn_input", "attn_output", "middle", "mlp_input", "down_proj_input", "mlp_output", "residual"]
PARALLEL = [name for name in PLAIN if name != "middle"]
BEHIND = [*PLAIN[:3], "attn_update", *PLAIN[3:7], "mlp_update", "residual"]
ORDERS = {
    "llama": PLAIN,
    "gpt2": PLAIN,
    "mixtral": PLAIN,
    "gpt_oss": PLAIN,
    "phi": PARALLEL,
    "gpt_neox": PARALLEL,
    "cohere": PARALLEL,
    "gemma3_text": BEHIND,
    "olmo2": BEHIND,
}


@pytest.mark.parametrize("family", ORDERS)
def test_states_come_in_the_order_in_which_they_are_made(scanned, family):
    trace = scanned(family).run.table("trace")
    for layer in range(3):
        rows = trace.filter(layer=layer)
        assert rows["state"].to_list() == ORDERS[family]
        assert rows["step"].to_list() == list(range(len(rows)))
    assert (trace["top1"] == trace["value"].abs()).all()
    assert (trace["top1"] >= trace["top2"]).all() and (trace["top3"] >= trace["median"]).all()


def test_before_is_what_the_layer_in_front_gave(scanned):
    it = scanned("llama")
    trace = it.run.table("trace")
    embedding = it.model.model.embed_tokens.weight[1].abs().topk(3).values
    first = trace.filter(layer=0, state="before").row(0, named=True)
    assert [first["top1"], first["top2"], first["top3"]] == pytest.approx(embedding.tolist(), rel=1e-5)
    for layer in (1, 2):
        before = trace.filter(layer=layer, state="before").drop("layer", "step", "state")
        assert before.rows() == trace.filter(layer=layer - 1, state="residual").drop("layer", "step", "state").rows()


def test_norms_behind_the_sum_leave_out_what_does_not_add_up(tmp_path, scanned):
    model = tiny_model("opt", do_layer_norm_before=False)
    run = scan(Adapter(model, TOKENIZER, Source("tiny", "object")), text=scanned("opt").text, **_small(tmp_path))
    assert run.table("contributions").height == 0
    assert not set(run.table("trace").filter(layer=0)["state"]) & {"before", "middle"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_contributions_add_up_also_where_a_giant_is_taken_away(tmp_path, scanned, dtype):
    """In bfloat16 the rounding of 20,000 is 64; a feature that goes from there to nothing adds up all the same."""
    model = tiny_model("llama")
    with torch.no_grad():
        for layer, size in ((0, 20000.0), (1, -20000.0)):
            block = model.model.layers[layer].mlp
            block.down_proj.bias = torch.nn.Parameter(torch.zeros(32))
            block.down_proj.bias[5] = size
    adapter = Adapter(model.to(dtype), TOKENIZER, Source("tiny", "object"))
    parts = scan(adapter, text=scanned("llama").text, **_small(tmp_path)).table("contributions").filter(feature=5)
    assert parts["mlp"].to_list()[:2] == pytest.approx([20000, -20000], rel=0.01)
    gap = (parts["before"] + parts["attention"] + parts["mlp"] - parts["after"]).abs()
    assert gap.max() <= (1e-2 if dtype is torch.float32 else 256)


def _small(tmp_path):
    return {"out": tmp_path / "run", "length": 24, "tokens": 48, "probes": ["trace"]}


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "gpt_oss"])
def test_emergence_is_the_ffn_by_hand(scanned, family):
    it = scanned(family)
    rows = it.run.table("emergence")
    layer, expert = rows["layer"][0], rows["expert"][0]
    assert set(rows.filter(state="up")["feature"]) == set(rows.filter(state="intermediate")["feature"])
    massive = it.run.table("massive_weights").filter(rank=1).row(0, named=True)
    assert (layer, expert) == (massive["layer"], massive["expert"])
    inner = rows.filter(state="intermediate").row(0, named=True)
    assert (inner["feature"], abs(inner["start"])) == (
        massive["feature"],
        pytest.approx(massive["magnitude"], rel=1e-4),
    )
    assert rows.filter(state="gate").is_empty() is (family == "gpt2")
    known = rows.filter(pl.col("state").is_in(["intermediate", "output"]))["others"].null_count() == 0
    assert known is (family != "gpt_oss")  # whose FFN is act(gate) * (up + 1), cut off: only the start token is told
    if family == "llama":
        given = it.input_of(f"model.layers.{layer}.mlp.down_proj")[0, 1:64, inner["feature"]]
        assert inner["others"] == pytest.approx(float(given.abs().mean()), rel=1e-4)
