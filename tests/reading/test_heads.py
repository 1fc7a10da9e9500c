"""What heads look for and write: against the model's own queries, keys and outputs, and planted circuits in words."""

import pytest
import torch

from monadnock.models import observe
from monadnock.reading import heads
from monadnock.reading.dictionary import Dictionary, input_dictionary, output_dictionary
from monadnock.reading.folding import centres
from monadnock.sites import Site, Stream
from tests.reading.conftest import LAYER, cosines, make, plain

CLIPPED = "mpt-clipped"  # cuts queries, keys and values off: no product of weights


@pytest.fixture(scope="module")
def bare(adapter):
    """The model without its biases: they are no direction that is read."""
    before = {name: part.detach().clone() for name, part in adapter.model.named_parameters() if name.endswith("bias")}
    for name, part in adapter.model.named_parameters():
        if name in before:
            part.data.zero_()
    yield adapter
    for name, part in adapter.model.named_parameters():
        if name in before:
            part.data.copy_(before[name])


def seen(adapter, ids, *sites):
    found = {}
    with observe(
        adapter, {site: lambda batch, site=site: found.update({site: batch.values.clone()}) for site in sites}
    ):
        adapter.forward(ids)
    return [found[site] for site in sites]


def asked(adapter, ids, role):
    """Return queries or keys in front of rotary and behind their norm, by query head, [seq, head, d_head]."""
    norm, found = adapter.norm(LAYER, {"q": "query", "k": "key"}[role]), []
    if norm is None:
        stream = {"q": Stream.QUERY, "k": Stream.KEY}[role]
        (values,) = seen(adapter, ids, Site(stream, LAYER))
    else:
        handle = norm.register_forward_hook(lambda _module, _args, output: found.append(output[0].clone()))
        adapter.forward(ids)
        handle.remove()
        values = found[0].transpose(0, 1) if found[0].shape[0] != len(ids) else found[0]
    values = values.reshape(len(ids), -1, adapter.d_head)
    return values.repeat_interleave(adapter.num_heads // values.shape[1], dim=1)


def test_centring_is_told_by_what_a_norm_does(adapter):
    names = [(layer, name) for layer in range(adapter.num_layers) for name in adapter.family.norms] + [(None, "final")]
    norms = [norm for layer, name in names if (norm := adapter.norm(layer, name)) is not None]
    assert norms or adapter.source.id == "opt-350m"
    for norm in norms:
        assert centres(norm) == ("RMS" not in type(norm).__name__)
        with torch.no_grad():  # gains of first layers may be tiny
            norm.weight.mul_(1e-3)
            assert centres(norm) == ("RMS" not in type(norm).__name__)
            norm.weight.mul_(1e3)


@pytest.mark.parametrize("role", ["q", "k"])
def test_rows_are_the_directions_of_the_state_that_a_head_reads(bare, ids, role):
    """Whatever stands between the state and the queries: the products have the same shares, head by head."""
    state = plain(bare, ids)[0][LAYER]
    found = torch.einsum("hed,sd->she", heads.head_rows(bare, LAYER, role), state)
    assert found.shape == (len(ids), bare.num_heads, bare.d_head)
    assert (cosines(found, asked(bare, ids, role)) > 1 - 1e-5).all()


def one_head(adapter, ids, head):
    """Return the state [1, d_model] of a lone token in front of the layer, and what one head adds to it."""
    width = adapter.d_head

    def silence(_module, args):
        alone = torch.zeros_like(args[0])
        alone[..., head * width : (head + 1) * width] = args[0][..., head * width : (head + 1) * width]
        return (alone, *args[1:])

    handle = adapter.module(LAYER, adapter.family.o).register_forward_pre_hook(silence)
    stream = Stream.ATTN_OUTPUT if adapter.source.id == "opt-350m" else Stream.ATTN_UPDATE
    state, update = seen(adapter, ids[:1], Site(Stream.RESIDUAL, LAYER - 1), Site(stream, LAYER))
    handle.remove()
    if adapter.source.id == "opt-350m":  # the norm stands behind the sum
        update = (update - update.mean(1, keepdim=True)) * adapter.gains(LAYER, "attn_output")
    return state, update


def test_ov_is_what_a_head_adds_for_a_token_that_sees_itself_alone(bare, ids, monkeypatch):
    if bare.source.id == CLIPPED:
        pytest.skip("values are cut off")
    monkeypatch.setattr(heads, "PAIRS", bare.d_head)
    circuits = heads.ov_circuits(bare, LAYER)
    for head in range(bare.num_heads):
        state, update = one_head(bare, ids, head)
        whole = circuits.left[head].T @ (circuits.values[head, :, None] * circuits.right[head])  # [d_model, d_model]
        assert (cosines(state @ whole.T, update) > 1 - 1e-5).all()


def dense(left, right):
    return torch.einsum("hed,hef->hdf", left.double(), right.double())


def test_all_pairs_make_up_the_product_of_the_matrices(adapter, monkeypatch):
    monkeypatch.setattr(heads, "PAIRS", adapter.d_head)
    q, k, v = (heads.head_rows(adapter, LAYER, role) for role in "qkv")
    output = adapter.weight(LAYER, "o").read().unflatten(1, (-1, adapter.d_head)).permute(1, 2, 0)  # head, d_head, D
    gains, norm = adapter.gains(LAYER, "attn_output"), adapter.norm(LAYER, "attn_output")
    if norm is not None and centres(norm):
        output = output - output.mean(2, keepdim=True)
    output = output if gains is None else output * gains
    both = (heads.qk_circuits, q, k), (heads.ov_circuits, output, v)
    for found, whole in ((make_them(adapter, LAYER), dense(left, right)) for make_them, left, right in both):
        again = torch.einsum("hpd,hp,hpe->hde", found.left.double(), found.values.double(), found.right.double())
        torch.testing.assert_close(again, whole, rtol=1e-3, atol=1e-4 * float(whole.abs().max()))
        values = torch.linalg.svdvals(whole)[:, : adapter.d_head]
        torch.testing.assert_close(found.values.double(), values, rtol=1e-3, atol=1e-4 * float(values.max()))
        for side in (found.left, found.right):
            gram = side @ side.mT
            torch.testing.assert_close(gram, torch.eye(adapter.d_head).expand_as(gram), atol=1e-4, rtol=0)


def test_a_query_head_meets_the_keys_of_its_own_group(ids):
    """Which query heads share a key: attention itself tells."""
    adapter = make("llama", num_key_value_heads=2)
    rows = heads.head_rows(adapter, LAYER, "k")
    assert torch.equal(rows[0], rows[1]) and torch.equal(rows[2], rows[3]) and not torch.equal(rows[1], rows[2])


def test_the_strongest_pairs_come_first_and_no_more_than_asked():
    adapter = make("llama")
    found = heads.qk_circuits(adapter, 0)
    assert found.left.shape == found.right.shape == (4, heads.PAIRS, 32)
    assert (found.values.diff(dim=1) <= 0).all() and found.values.shape == (4, 8)


# words


HEAD, ASKS, FOR, READS, WRITES = 2, 11, 47, 23, 90  # tokens


def orthogonal(adapter):
    """Give a model embedding rows of which the named four are at right angles to all others and to each other."""
    embedding, head = (
        adapter.model.get_input_embeddings().weight.data,
        adapter.model.get_output_embeddings().weight.data,
    )
    for rows in {embedding.data_ptr(): embedding, head.data_ptr(): head}.values():
        rows[:, :4] = 0
        for place, token in enumerate((ASKS, FOR, READS, WRITES)):
            rows[token] = 0
            rows[token, place] = 1.0
    return torch.eye(32)[:4]


def planted(case):
    """Plant one head whose queries know one token and whose keys know another, and which turns a third to a fourth."""
    adapter = make(case)
    asks, answers, reads, writes = orthogonal(adapter)
    attn, final = adapter.gains(0, "attn_input"), adapter.gains(None, "final")
    first = HEAD * adapter.d_head
    with torch.no_grad():
        for role, direction in (("q", asks), ("k", answers), ("v", reads)):
            view = adapter.weight(0, role).read()
            start = first if role == "q" or adapter.num_kv_heads == 4 else HEAD // 2 * adapter.d_head
            view[start : start + adapter.d_head] *= 0.01
            view[start] = 5 * direction / attn
        output = adapter.weight(0, "o").read()
        output[:, first : first + adapter.d_head] *= 0.01
        output[:, first] = 5 * writes / final
    return adapter


@pytest.mark.parametrize("case", ["llama", "gemma", "mixtral", "mistral", "phi3"])
def test_a_planted_circuit_is_read_back_in_words(case):
    adapter = planted(case)
    dictionaries = input_dictionary(adapter), output_dictionary(adapter)
    circuits, readings = heads.read_layer(adapter, 0, {}, dictionaries)
    assert [(row["head"], row["circuit"]) for row in circuits] == [(h, c) for c in ("qk", "ov") for h in range(4)]
    first = {
        (row["kind"], row["side"], row["sign"]): row
        for row in readings
        if row["head"] == HEAD and row["index"] == 0 and row["rank"] == 1
    }
    tops = {(kind, side): [] for kind, side, _ in first}
    for (kind, side, sign), row in first.items():
        tops[kind, side].append((abs(row["amplitude"]), row["word_id"], sign))
    best = {place: max(found) for place, found in tops.items()}
    assert {place: token for place, (_, token, _) in best.items()} == {
        ("qk", "query"): ASKS,
        ("qk", "key"): FOR,
        ("ov", "reads"): READS,
        ("ov", "writes"): WRITES,
    }
    assert all(amplitude > 0.95 for amplitude, _, _ in best.values())
    assert best["qk", "query"][2] == best["qk", "key"][2]  # a pair may be turned round, but both sides together
    assert best["ov", "reads"][2] == best["ov", "writes"][2]
    assert {row["dictionary"] for row in readings if row["side"] == "writes"} == {"output"}
    assert {row["dictionary"] for row in readings if row["side"] != "writes"} == {"input"}
    row = first["qk", "key", 1]
    assert row["word"] == adapter.tokenizer.decode([row["word_id"]])


def test_every_vector_has_both_ends_in_order():
    adapter = make("llama")
    _, readings = heads.read_layer(adapter, 0, {}, (input_dictionary(adapter), output_dictionary(adapter)))
    assert len(readings) == 2 * 2 * 4 * heads.PAIRS * 2 * heads.WORDS
    places = {}
    for row in readings:
        place = tuple(row[name] for name in ("kind", "head", "index", "side", "sign"))
        places.setdefault(place, []).append((row["rank"], row["amplitude"]))
    for (*_, sign), found in places.items():
        assert [rank for rank, _ in found] == list(range(1, heads.WORDS + 1))
        assert [sign * amplitude for _, amplitude in found] == sorted((sign * a for _, a in found), reverse=True)


def test_readings_belong_to_their_own_pair():
    """Each head's and each pair's words against a dictionary of its own vector alone."""
    adapter = make("qwen3")
    own, output = input_dictionary(adapter), output_dictionary(adapter)
    _, readings = heads.read_layer(adapter, LAYER, {}, (own, output))
    qk, ov = heads.qk_circuits(adapter, LAYER), heads.ov_circuits(adapter, LAYER)
    sides = {
        "query": (qk, "left", own),
        "key": (qk, "right", own),
        "writes": (ov, "left", output),
        "reads": (ov, "right", own),
    }
    for row in readings:
        if row["rank"] == 1 and row["sign"] == 1:
            circuits, name, words = sides[row["side"]]
            vector = getattr(circuits, name)[row["head"], row["index"]]
            top = words.top(words.directions(vector[None]), 1)
            assert (row["word_id"], row["strength"]) == (
                int(top.ids),
                pytest.approx(float(circuits.values[row["head"], row["index"]])),
            )


def test_heads_driven_by_position_are_flagged_and_their_qk_is_not_decoded():
    adapter = make("llama")
    words = input_dictionary(adapter), output_dictionary(adapter)
    circuits, readings = heads.read_layer(adapter, 0, {0: (1, 0.31), 1: (0, 0.3)}, words)
    assert [row["position_driven"] for row in circuits if row["circuit"] == "qk"] == [True, False, False, False]
    assert [(row["offset"], row["offset_mass"]) for row in circuits[:3]] == [(1, 0.31), (0, 0.3), (None, None)]
    assert {row["head"] for row in readings if row["kind"] == "qk"} == {1, 2, 3}
    assert {row["head"] for row in readings if row["kind"] == "ov"} == {0, 1, 2, 3}
    rows = list(heads.read_rows(adapter, 0, "q", {0: (1, 0.31), 1: (0, 0.3)}, words[0]))
    assert {row["head"] for row in rows} == {1, 2, 3}


@pytest.mark.parametrize("case", ["llama", "gemma", "phi3"])
def test_every_row_of_a_planted_head_is_read(case):
    adapter = planted(case)
    words = input_dictionary(adapter)
    for role, token in (("q", ASKS), ("k", FOR)):
        rows = list(heads.read_rows(adapter, 0, role, {}, words))
        assert len(rows) == 4 * adapter.d_head * 2 * heads.WORDS
        place = {"head": HEAD, "index": 0, "sign": 1, "rank": 1}
        (row,) = (row for row in rows if place.items() <= row.items())
        assert (row["kind"], row["side"]) == (f"{role}_row", {"q": "query", "k": "key"}[role])
        assert row["word_id"] == token and row["amplitude"] > 0.999 and row["strength"] == pytest.approx(5, rel=1e-4)


def test_heads_of_few_entries_have_as_many_pairs():
    adapter = make("llama", head_dim=2)
    words = Dictionary("input", torch.eye(32)), Dictionary("output", torch.eye(32))
    _, readings = heads.read_layer(adapter, 0, {}, words)
    assert {row["index"] for row in readings} == {0, 1}
    right = heads.qk_circuits(adapter, 0).right[3, 1]
    place = {"kind": "qk", "side": "key", "head": 3, "index": 1, "sign": 1, "rank": 1}
    (row,) = (row for row in readings if place.items() <= row.items())
    assert row["word_id"] == int(right.argmax()) and row["amplitude"] == pytest.approx(float(right.max()), rel=1e-5)


def test_a_head_without_weights_has_no_directions():
    adapter = make("llama")
    with torch.no_grad():
        adapter.weight(0, "o").read().zero_()
    circuits, _ = heads.read_layer(adapter, 0, {}, (input_dictionary(adapter), output_dictionary(adapter)))
    ranks = {row["circuit"]: row["effective_rank"] for row in circuits}
    assert ranks["ov"] == 0 and ranks["qk"] > 1
