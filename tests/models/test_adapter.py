"""Paths of every family lead to the right parts: shapes, norms, positions, rotary layout, and writing through."""

import sys

import pytest
import torch
from torch import Tensor, nn

from monadnock.errors import MonadnockError
from monadnock.models.adapter import Adapter, Source
from monadnock.models.family import NORMS
from monadnock.sites import Site, Stream
from tests.models.conftest import LENGTH, record, values
from tests.tiny import tiny_model


def sizes(adapter: Adapter) -> tuple[int, int, int, int, int]:
    """Return query heads, key heads, d_head, d_model and d_mlp, from the config alone."""
    c = adapter.config
    heads = c.num_attention_heads
    if c.model_type == "falcon":
        kv = c.num_kv_heads if c.new_decoder_architecture else (1 if c.multi_query else heads)
    else:
        kv = getattr(c, "num_key_value_heads", None) or heads
    d_head = getattr(c, "head_dim", None) or c.hidden_size // heads
    names = ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner")
    width = next((getattr(c, name) for name in names if getattr(c, name, None)), 4 * c.hidden_size)
    return heads, kv, d_head, c.hidden_size, width


def test_shapes_agree_with_the_config(adapter):
    heads, kv, d_head, d_model, width = sizes(adapter)
    expected = {
        "q": (heads * d_head, d_model),
        "k": (kv * d_head, d_model),
        "v": (kv * d_head, d_model),
        "o": (d_model, heads * d_head),
        "gate": (width, d_model),
        "up": (width, d_model),
        "down": (d_model, width),
        "router": (getattr(adapter.config, "num_local_experts", 0), d_model),
    }
    found = (adapter.num_heads, adapter.num_kv_heads, adapter.d_head, adapter.hidden_size, adapter.intermediate_size)
    assert found == (heads, kv, d_head, d_model, width)
    assert adapter.num_layers == adapter.config.num_hidden_layers == 3
    assert adapter.num_experts == getattr(adapter.config, "num_local_experts", None)
    assert adapter.context_length in (256, 2048)
    for layer in range(3):
        parts = list(adapter.matrices(layer))
        for role, expert, view in parts:
            assert tuple(view.read().shape) == expected[role], (role, expert)
            assert (expert is not None) == (bool(adapter.num_experts) and role in ("gate", "up", "down"))
            bias = None if role == "router" else adapter.bias(layer, role, expert)
            assert bias is None or tuple(bias.read().shape) == expected[role][:1]
        mlp = 3 if adapter.has("gate") else 2
        assert len(parts) == 4 + mlp * (adapter.num_experts or 1) + bool(adapter.num_experts)


def test_matrices_cover_the_layers_parameters(adapter):
    """Every number of a layer's matrices belongs to exactly one part: no part is missing or counted twice."""
    for layer in range(adapter.num_layers):
        stored = sum(
            p.numel()
            for name, p in adapter.layers[layer].named_parameters()
            if p.dim() > 1 and "bias" not in name and "norm" not in name
        )
        assert sum(view.read().numel() for _, _, view in adapter.matrices(layer)) == stored


def test_biases_are_found(adapter):
    """All bias numbers of a layer's projections are reached, and none is made up."""
    found = 0
    for layer in range(adapter.num_layers):
        for role, expert, _ in adapter.matrices(layer):
            bias = None if role == "router" else adapter.bias(layer, role, expert)
            found += 0 if bias is None else bias.read().numel()
    norms = {id(m.bias) for m in adapter.model.modules() if isinstance(m, nn.LayerNorm) and m.bias is not None}
    stored = [
        parameter
        for name, parameter in adapter.layers.named_parameters()
        if name.endswith("bias") and id(parameter) not in norms and "router" not in name
    ]
    assert found == sum(parameter.numel() for parameter in stored)


def norm_modules(adapter: Adapter) -> list[tuple[int | None, str, nn.Module]]:
    places = [(layer, name) for layer in range(adapter.num_layers) for name in NORMS] + [(None, "final")]
    found = [(layer, name, adapter.norm(layer, name)) for layer, name in places]
    return [(layer, name, module) for layer, name, module in found if module is not None]


def test_every_norm_is_known(adapter):
    """The norms of the family are all the modules of the decoder that look like norms, each once."""
    looks = {id(m) for m in adapter.decoder.modules() if "norm" in type(m).__name__.lower()}
    known = [id(module) for _, _, module in norm_modules(adapter)]
    assert set(known) == looks
    assert len(known) == len(looks)
    assert len(list(adapter.norms())) == len(known)


def test_gains_are_what_norms_multiply_by(adapter):
    for layer, name, module in norm_modules(adapter):
        gains = adapter.gains(layer, name)
        assert gains is not None and gains.std() > 0.1
        weight: torch.Tensor = module.weight  # of Cohere's heads, [head, d_head]
        gains = gains.view(weight.shape)
        x = torch.randn(5, *weight.shape, generator=torch.Generator().manual_seed(1))
        centred = x - x.mean(-1, keepdim=True) if "LayerNorm" in type(module).__name__ else x
        bias = getattr(module, "bias", None)
        expected = centred / centred.pow(2).mean(-1, keepdim=True).sqrt() * gains + (0 if bias is None else bias)
        torch.testing.assert_close(module(x), expected, rtol=1e-3, atol=1e-3)


def test_norms_stand_where_their_names_say(adapter, ids):
    """Norms in front of a part put out its input; norms behind a part, or on queries and keys, take its output."""
    streams = {
        "attn_input": Stream.ATTN_INPUT,
        "mlp_input": Stream.MLP_INPUT,
        "attn_output": Stream.ATTN_OUTPUT,
        "mlp_output": Stream.MLP_OUTPUT,
        "query": Stream.QUERY,
        "key": Stream.KEY,
    }
    passed: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
    handles = []
    for layer, name, module in norm_modules(adapter):
        if layer is not None:

            def keep(_module: nn.Module, args: tuple, output: Tensor, place=(layer, name)) -> None:
                passed[place] = (args[0].clone(), output.clone())

            handles.append(module.register_forward_hook(keep))
    try:
        seen = values(adapter, ids, *streams.values())
        after, _ = record(adapter, ids, Stream.RESIDUAL)
    finally:
        for handle in handles:
            handle.remove()
    assert passed
    for (layer, name), (given, put_out) in passed.items():
        states = seen[Site(streams[name], layer)]
        if name.endswith("_input"):
            assert torch.equal(put_out.reshape(states.shape), states)
        elif adapter.source.id == "opt-350m":  # behind the residual additions: the norms put out the sums' norms
            follows = {"attn_output": Site(Stream.MLP_INPUT, layer), "mlp_output": Site(Stream.RESIDUAL, layer)}[name]
            both = seen | {site: parts[0].values for site, parts in after.items()}
            assert torch.equal(put_out.reshape(LENGTH, -1), both[follows])
        else:
            given = given.transpose(1, 2) if given.dim() == 4 and given.shape[2] == LENGTH else given
            assert torch.equal(given.reshape(states.shape), states)


def test_positions_lead_to_an_embedding(adapter):
    tables = [m for n, m in adapter.decoder.named_modules() if isinstance(m, nn.Embedding)]
    if adapter.family.positions is None:
        assert len(tables) == 1
        return
    table = adapter.decoder.get_submodule(adapter.family.positions)
    assert len(tables) == 2 and table in tables
    assert table is not adapter.model.get_input_embeddings()
    assert tuple(table.weight.shape) in {(256, 32), (258, 32)}


def test_rotary_layout(adapter):
    """A unit query along the first dimension is turned into its partner: half of the turned width away, or next."""
    module = adapter.module(0, adapter.family.attention_module)
    homes = [sys.modules[cls.__module__] for cls in type(module).__mro__]
    rotate = next((home.apply_rotary_pos_emb for home in homes if hasattr(home, "apply_rotary_pos_emb")), None)
    if adapter.family.rotary == "none":
        assert rotate is None or getattr(adapter.config, "alibi", False)
        return
    assert rotate is not None
    kinds = getattr(adapter.config, "layer_types", None)
    position = torch.tensor([[3]])
    query = torch.zeros(1, 1, 1, adapter.d_head)
    query[..., 0] = 1
    arguments = (kinds[0],) if adapter.family.model_type == "gemma3_text" else ()
    cos, sin = adapter.decoder.rotary_emb(query, position, *arguments)
    width = {"gpt_neox": 0.5, "phi": 0.5}.get(adapter.family.model_type, 1.0) * adapter.d_head
    width = 0.25 * adapter.d_head if adapter.source.id == "phi-normed" else width
    turned, _ = rotate(query[..., : int(width)], query[..., : int(width)], cos, sin)
    partner = 1 if adapter.family.rotary == "interleaved" else int(width) // 2
    assert turned.flatten().nonzero().flatten().tolist() == [0, partner]


def stored_row(adapter: Adapter, role: str, row: int) -> int:
    """Return where output row `row` of a part lies among the output rows of the stored parameter."""
    how = getattr(adapter.family, role).partition("#")[2]
    heads, kv, d_head, _, width = sizes(adapter)
    per = heads // kv
    if how == "rows":
        return {"q": 0, "k": heads * d_head, "v": (heads + kv) * d_head}[role] + row
    if how == "heads":
        head, inside = divmod(row, d_head)
        block = head // per * (per + 2) + head % per if role == "q" else head * (per + 2) + per + (role == "v")
        return block * d_head + inside
    if how == "halves":
        return row + (width if role == "up" else 0)
    if how == "pairs":
        return 2 * row + (role == "up")
    return row


def stored(adapter: Adapter, layer: int, role: str, expert: int | None) -> Tensor:
    """Return the model's own parameter as [out, in], or [expert, ...] cut to one expert."""
    parts = dict(adapter.layers[layer].named_parameters())
    path = getattr(adapter.family, role).partition("#")[0]
    parameter = parts.get(path, parts.get(f"{path}.weight"))
    assert parameter is not None
    parameter = parameter if expert is None else parameter[expert]
    return parameter.T if role in adapter.family.transposed else parameter


def test_writing_rows_reaches_the_model_and_only_them(adapter):
    layer = 1
    before = {name: value.clone() for name, value in adapter.model.state_dict().items()}
    for role, expert, view in adapter.matrices(layer):
        if role == "router" or expert == 1:
            continue
        size, width = view.read().shape
        rows = torch.tensor([0, size // 2, size - 1])
        old = view.read()[rows].clone()
        new = torch.arange(3.0 * width).reshape(3, width) + 100
        own = stored(adapter, layer, role, expert)
        places = [stored_row(adapter, role, int(row)) for row in rows]
        assert torch.equal(own[places], old), role
        view.set_rows(rows, new)
        assert torch.equal(own[places], new), role
        assert torch.equal(adapter.weight(layer, role, expert).read()[rows], new)
        after = adapter.model.state_dict()
        changed = {name: int((after[name] != before[name]).sum()) for name in before}
        assert all(f".{layer}." in name for name, count in changed.items() if count)
        assert sum(changed.values()) == 3 * width
        view.set_rows(rows, 0.0)
        assert not own[places].any()
        view.set_rows(rows, old)
        assert all(torch.equal(value, before[name]) for name, value in adapter.model.state_dict().items())


def test_writing_a_bias_reaches_the_model(adapter):
    before = {name: value.clone() for name, value in adapter.model.state_dict().items()}
    for role, expert, view in adapter.matrices(2):
        bias = None if role == "router" else adapter.bias(2, role, expert)
        if bias is None:
            continue
        rows = torch.tensor([1, view.read().shape[0] - 1])
        old = bias.read()[rows].clone()
        bias.set_rows(rows, torch.tensor([50.0, 60.0]))
        assert adapter.bias(2, role, expert).read()[rows].tolist() == [50.0, 60.0]
        after = adapter.model.state_dict()
        assert sum(int((after[name] != before[name]).sum()) for name in before) == 2
        bias.set_rows(rows, old)
    assert all(torch.equal(value, before[name]) for name, value in adapter.model.state_dict().items())


def test_missing_parts_are_told_in_a_sentence():
    adapter = Adapter(tiny_model("gpt2"), None, Source("mine", "object"))
    with pytest.raises(MonadnockError, match="gpt2 has no gate projection"):
        adapter.weight(0, "gate")
    with pytest.raises(MonadnockError, match=r"layer 1 of mine has no mlp.nothing \(nothing is missing\)"):
        adapter.module(1, "mlp.nothing")
    with pytest.raises(ValueError, match="unknown norm 'middle'"):
        adapter.norm(0, "middle")
    mixtral = Adapter(tiny_model("mixtral"), None, Source("mine", "object"))
    with pytest.raises(ValueError, match="needs an expert"):
        mixtral.weight(0, "up")


def test_config_output_settings_do_not_matter():
    model = tiny_model("falcon")
    ids = torch.arange(3, 13)
    plain = Adapter(model, None, Source("mine", "object")).forward(ids, 10)
    model.config.return_dict = False
    assert torch.equal(Adapter(model, None, Source("mine", "object")).forward(ids, 10), plain)


def test_forward_keeps_the_positions_asked_for(adapter, ids):
    everything = adapter.forward(ids, LENGTH)
    assert everything.shape == (LENGTH, 128)
    torch.testing.assert_close(adapter.forward(ids, torch.tensor([2, 5])), everything[[2, 5]])
    torch.testing.assert_close(adapter.forward(ids), everything[-1:])
