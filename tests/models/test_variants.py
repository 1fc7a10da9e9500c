"""Attention variants: formulas in float64 against plain sums, identities between them, saved, loaded and observed."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2LMHeadModel, LlamaForCausalLM

from monadnock import MonadnockError, load
from monadnock.models import Adapter, Source
from monadnock.models.variants import VARIANTS, build
from monadnock.models.variants.classes import ARCHITECTURES
from monadnock.scanning import scan
from monadnock.sites import Site, Stream
from tests.models.conftest import probabilities, record
from tests.words import random_words, word_tokenizer, write_words

SIZES = {
    "llama": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "max_position_embeddings": 64},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "attn_pdrop": 0.0, "resid_pdrop": 0.0,
             "embd_pdrop": 0.0},
}  # fmt: skip
CASES = [(architecture, variant) for architecture in ARCHITECTURES for variant in VARIANTS]


def made(architecture: str, variant: str, std: float = 0.5, **settings) -> nn.Module:
    """Return a tiny model in float64 whose variant has parameters that matter."""
    torch.manual_seed(0)
    model = build(architecture, variant, vocab_size=128, **SIZES[architecture] | settings).double().eval()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".variant." in name:
                parameter.copy_(std * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
            elif parameter.dim() > 1:
                parameter.mul_(10)  # attention far from uniform
    return model


def shown(model: nn.Module, ids: Tensor) -> list[dict[str, Tensor]]:
    """Run a model; return what each attention module got and gave."""
    seen = []

    def keep(module, args, given, output):
        states = args[0] if args else given["hidden_states"]
        seen.append({"module": module, "states": states, "output": output[0], "given": given})

    parts = [module for module in model.modules() if hasattr(module, "variant")]
    handles = [module.register_forward_hook(keep, with_kwargs=True) for module in parts]
    with torch.no_grad():
        model(ids)
    for handle in handles:
        handle.remove()
    return seen


def parts(seen: dict) -> tuple[Tensor, Tensor, Tensor, nn.Module]:
    """Return q, k, v [batch, head, seq, d_head], keys and values for every query head, and the module behind them."""
    module, states = seen["module"], seen["states"]
    if hasattr(module, "c_attn"):
        split = module.c_attn(states).split(states.shape[-1], dim=-1)
        q, k, v = (part.unflatten(-1, (-1, module.head_dim)).transpose(1, 2) for part in split)
        return q, k, v, module.c_proj
    q, k, v = (
        linear(states).unflatten(-1, (-1, module.head_dim)).transpose(1, 2)
        for linear in (module.q_proj, module.k_proj, module.v_proj)
    )
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    q, k = apply_rotary_pos_emb(q, k, *seen["given"]["position_embeddings"])
    return q, *(each.repeat_interleave(2, dim=1) for each in (k, v)), module.o_proj


def expected(seen: dict) -> Tensor:
    """Return the output of an attention module by the definition, one query and one head at a time."""
    q, k, v, out = parts(seen)
    module, variant = seen["module"], seen["module"].variant
    batch, heads, length, size = q.shape
    result = torch.zeros_like(q)
    longest = module.config.max_position_embeddings
    for b in range(batch):
        for h in range(heads):
            own = dict(variant.named_parameters())
            group = h if not own or "key" not in own else h * own["key"].shape[0] // heads
            for i in range(length):
                scores = [float(q[b, h, i] @ k[b, h, j]) / math.sqrt(size) for j in range(i + 1)]
                weights = [math.exp(score) for score in scores]
                total, rest = sum(weights), None
                if variant.name in ("context_bias", "attention_bias"):
                    rest = math.exp(float(q[b, h, i] @ own["key"][group]) / math.sqrt(size))
                elif variant.name == "learned_sink":
                    rest = math.exp(float(own["sink"][h]))
                elif variant.name == "softmax_plus_one":
                    rest = 1.0
                if variant.name == "sigmoid":
                    weights, whole = [1 / (1 + math.exp(-(score - math.log(longest)))) for score in scores], 1.0
                else:
                    whole = total if rest is None or variant.name == "context_bias" else total + rest
                y = sum(weight / whole * v[b, h, j] for j, weight in enumerate(weights))
                if variant.name == "fixed_bias":
                    y = y + own["value"][h]
                if variant.name in ("context_bias", "attention_bias"):
                    y = y + rest / (total + rest) * own["value"][group]
                result[b, h, i] = y
    joined = result.transpose(1, 2)
    if variant.name == "context_scale":
        joined = joined * (2 / (1 + torch.exp(-(seen["states"] @ own["weight"].T + own["bias"]))))[..., None]
    if variant.name == "gate":
        gate = 1 / (1 + torch.exp(-(seen["states"] @ own["weight"].T + own["bias"])))
        joined = joined * gate.unflatten(-1, (heads, size))
    return out(joined.flatten(2))


@pytest.mark.parametrize(("architecture", "variant"), CASES)
def test_each_variant_is_its_formula(architecture, variant):
    ids = torch.randint(3, 128, (2, 7), generator=torch.Generator().manual_seed(2))
    for seen in shown(made(architecture, variant), ids):
        torch.testing.assert_close(seen["output"], expected(seen), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("architecture", "variant"), CASES)
def test_observed_it_gives_the_same_and_shows_the_tokens_part(architecture, variant):
    adapter = Adapter(made(architecture, variant).float(), None, Source("tiny", "object"))
    ids = torch.randint(3, 128, (40,), generator=torch.Generator().manual_seed(3))
    plain = adapter.forward(ids, 40)
    _, watched = record(adapter, ids)
    torch.testing.assert_close(watched, plain, rtol=1e-4, atol=1e-4)
    sums = torch.stack([probs.sum(-1) for probs in probabilities(adapter, ids)])
    if variant in ("attention_bias", "learned_sink", "softmax_plus_one"):
        assert (sums < 1).all() and sums.min() < 0.9
    elif variant == "sigmoid":
        assert (sums - 1).abs().mean() > 0.1
    else:
        torch.testing.assert_close(sums, torch.ones_like(sums))


@pytest.mark.parametrize(("architecture", "variant"), CASES)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_a_later_token_never_changes_an_earlier_output(architecture, variant, data):
    model = made(architecture, variant)
    length = data.draw(st.integers(2, 20))
    place = data.draw(st.integers(1, length - 1))
    ids = torch.randint(3, 128, (1, length), generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    other = ids.clone()
    other[0, place] = (ids[0, place] + 1) % 128
    with torch.no_grad():
        one, two, shorter = model(ids).logits, model(other).logits, model(ids[:, :place]).logits
    torch.testing.assert_close(one[:, :place], two[:, :place], rtol=0, atol=1e-11)
    torch.testing.assert_close(one[:, :place], shorter, rtol=0, atol=1e-11)
    assert not torch.equal(one[:, place:], two[:, place:])


@pytest.mark.parametrize(("architecture", "variant"), CASES)
def test_generation_with_a_cache_equals_one_without(architecture, variant):
    model = made(architecture, variant)
    ids = torch.randint(3, 128, (1, 9), generator=torch.Generator().manual_seed(4))
    cached, plain = (
        model.generate(ids, max_new_tokens=6, do_sample=False, use_cache=use, pad_token_id=0) for use in (True, False)
    )
    assert torch.equal(cached, plain)


@pytest.mark.parametrize(("architecture", "variant"), CASES)
def test_generation_with_a_static_cache_equals_one_without(architecture, variant):
    model = made(architecture, variant)
    ids = torch.randint(3, 128, (1, 9), generator=torch.Generator().manual_seed(4))
    how = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    static = model.generate(ids, cache_implementation="static", disable_compile=True, **how)
    assert torch.equal(static, model.generate(ids, use_cache=False, **how))


def test_context_bias_is_right_where_its_key_takes_nearly_everything():
    model = made("gpt2", "context_bias", std=30.0).float()
    ids = torch.randint(3, 128, (2, 12), generator=torch.Generator().manual_seed(6))
    with torch.enable_grad():
        model(ids, labels=ids).loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    for seen in shown(model.double(), ids):
        torch.testing.assert_close(seen["output"], expected(seen), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("architecture", "variant"), CASES)
def test_padding_on_the_left_changes_nothing(architecture, variant):
    model = made(architecture, variant)
    ids = torch.randint(3, 128, (1, 9), generator=torch.Generator().manual_seed(5))
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), ids], dim=1)
    mask = (torch.arange(13) >= 4)[None].long()
    positions = (torch.arange(13) - 4).clamp(min=0)[None]
    with torch.no_grad():
        one = model(ids).logits
        two = model(padded, attention_mask=mask, position_ids=positions).logits[:, 4:]
    torch.testing.assert_close(one, two, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("architecture", "variant"), CASES)
def test_gradients_are_finite_and_reach_every_parameter(architecture, variant):
    model = made(architecture, variant).float().train()
    ids = torch.randint(3, 128, (2, 16), generator=torch.Generator().manual_seed(6))
    with torch.enable_grad():
        model(ids, labels=ids).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert ".variant." not in name or parameter.grad.abs().max() > 0, name


def logits(model: nn.Module, **parameters: Tensor) -> Tensor:
    """Return logits with the variant's parameters set, all layers alike."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if (short := name.rpartition(".")[2]) in parameters and ".variant." in name:
                parameter.copy_(parameters[short].expand_as(parameter))
        return model(torch.randint(3, 128, (2, 12), generator=torch.Generator().manual_seed(7))).logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_identities(architecture):
    far, none = torch.tensor(-1e9).double(), torch.tensor(0.0).double()
    default = logits(made(architecture, "default"))
    close = {"rtol": 0, "atol": 1e-10}
    torch.testing.assert_close(logits(made(architecture, "learned_sink"), sink=far), default, **close)
    torch.testing.assert_close(logits(made(architecture, "fixed_bias"), value=none), default, **close)
    torch.testing.assert_close(logits(made(architecture, "context_bias"), value=none), default, **close)
    torch.testing.assert_close(logits(made(architecture, "context_scale"), weight=none, bias=none), default, **close)
    plus_one = logits(made(architecture, "softmax_plus_one"))
    torch.testing.assert_close(logits(made(architecture, "learned_sink"), sink=none), plus_one, **close)
    torch.testing.assert_close(logits(made(architecture, "attention_bias"), key=none, value=none), plus_one, **close)
    assert not torch.allclose(plus_one, default)


def test_attention_bias_whose_key_is_never_met_is_the_default():
    """With every query's first dimension at 1, k' = (-1e9, 0, ...) has a logit of minus infinity for all."""
    settings = {"n_layer": 1}
    models = {name: made("gpt2", name, **settings) for name in ("attention_bias", "default")}
    for model in models.values():
        attention = model.transformer.h[0].attn
        with torch.no_grad():
            first = torch.arange(0, 32, attention.head_dim)
            attention.c_attn.weight[:, first] = 0
            attention.c_attn.bias[first] = 1
    key = torch.zeros(4, 8).double()
    key[:, 0] = -1e9
    assert torch.equal(logits(models["attention_bias"], key=key).round(decimals=10), logits(models["default"]).round(decimals=10))  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_begin_with_the_same_weights_and_context_scale_with_the_same_function(architecture):
    begun = {}
    for variant in VARIANTS:
        torch.manual_seed(3)
        begun[variant] = build(architecture, variant, vocab_size=128, **SIZES[architecture]).eval()
    plain = dict(begun["default"].named_parameters())
    for variant, model in begun.items():
        for name, parameter in model.named_parameters():
            assert ".variant." in name or torch.equal(parameter, plain[name]), (variant, name)
            assert parameter.isfinite().all()
    ids = torch.arange(3, 30)[None]
    assert torch.equal(begun["context_scale"](ids).logits, begun["default"](ids).logits)
    drawn = torch.cat([p.flatten() for n, p in begun["attention_bias"].named_parameters() if ".variant." in n])
    assert drawn.numel() > 30 and drawn.std() == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize(("architecture", "stock"), [("llama", LlamaForCausalLM), ("gpt2", GPT2LMHeadModel)])
def test_the_default_is_the_stock_model(architecture, stock):
    model = made(architecture, "default").float().eval()
    plain = stock(stock.config_class(**model.config.to_dict())).eval()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if ".variant." not in name})
    ids = torch.randint(3, 100, (2, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, -5:] = 0  # padded at its end
    with torch.no_grad():
        for given in ({}, {"attention_mask": mask}):
            torch.testing.assert_close(model(ids, **given).logits, plain(ids, **given).logits)


def test_a_scale_above_one_is_told_as_it_is(tmp_path):
    """context_scale goes up to 2: the upper tenth of S is not cut at 1."""
    model = made("llama", "context_scale").float()
    for name, parameter in model.named_parameters():
        if name.endswith("variant.bias"):
            parameter.data.fill_(1.0)  # 2 sigmoid(1) is 1.46
        elif name.endswith("variant.weight"):
            parameter.data.mul_(0.1)
    word_tokenizer().save_pretrained(tmp_path)
    adapter = Adapter(model.eval(), word_tokenizer(), Source("tiny", "object"))
    run = scan(adapter, out=tmp_path / "run", text=write_words(tmp_path, random_words(200)), tokens=128, length=32,
               progress=False)  # fmt: skip
    heads = run.table("scaling").filter(sink_keys=0)
    assert heads.height and (heads["p90"] > 1.2).all() and (heads["p90"] < 2).all()
    assert ((heads["mean"] + 0.02 > heads["p10"]) & (heads["mean"] - 0.02 < heads["p90"])).all()


@pytest.mark.parametrize(("architecture", "variant"), CASES)
def test_saved_and_loaded_it_is_the_same_and_can_be_scanned(architecture, variant, tmp_path):
    model = made(architecture, variant).float()
    model.save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    adapter = load(str(tmp_path / "model"))
    assert adapter.config.attention_variant == variant and type(adapter.model) is type(model)
    ids = torch.arange(3, 40)
    with torch.no_grad():
        assert torch.equal(adapter.model(ids[None]).logits, model(ids[None]).logits)
    text = write_words(tmp_path, random_words(100))
    run = scan(adapter, out=tmp_path / "run", text=text, tokens=64, length=32, progress=False)
    assert run.table("heads").height == 8
    kinds = run.table("scaling")["kind"].str
    assert kinds.contains("gate").all() == (variant in ("context_scale", "gate"))
    has_more = variant in ("attention_bias", "learned_sink", "softmax_plus_one")
    assert kinds.contains("learned").all() == has_more and kinds.contains("learned").any() == has_more
    assert run.table("scaling")["mean"].is_null().all() == (variant == "sigmoid"), "no sink takes from others there"
    outputs = record(adapter, ids, Stream.ATTN_OUTPUT)[0][Site(Stream.ATTN_OUTPUT, 0)]
    torch.testing.assert_close(outputs[0].values[None], shown(model, ids[None])[0]["output"], rtol=1e-4, atol=1e-5)


def test_attention_functions_that_leave_the_variant_out_are_refused(tmp_path):
    model = made("llama", "sigmoid")
    with pytest.raises(MonadnockError, match=r"runs under 'monadnock_variant' .*, not 'eager'"):
        model.set_attn_implementation("eager")
    model.set_attn_implementation("sdpa")  # which does the work underneath
    assert model.config._attn_implementation == "monadnock_variant"
    model.save_pretrained(tmp_path)
    model.model.set_attn_implementation("eager")  # past the class that looks
    with pytest.raises(MonadnockError, match="not 'eager'"):
        model(input_ids=torch.ones(1, 3, dtype=torch.long))
    for asked in ("eager", "flex_attention"):
        with pytest.raises(MonadnockError, match=f"not '{asked}'; leave attn_implementation out"):
            AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=asked)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="sdpa")
    assert loaded.config._attn_implementation == "monadnock_variant"


def test_unknown_names_and_dropout_that_has_no_meaning_are_refused():
    with pytest.raises(MonadnockError, match="did you mean sigmoid"):
        build("llama", "sigmoit")
    with pytest.raises(MonadnockError, match="no architecture 'bert'"):
        build("bert", "sigmoid")
    with pytest.raises(MonadnockError, match="not defined with dropout"):
        build("gpt2", "context_bias", **SIZES["gpt2"] | {"attn_pdrop": 0.1})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("variant", ["context_scale", "gate", "default"])
def test_what_scales_the_output_is_seen_as_the_gate_of_the_heads(architecture, variant):
    adapter = Adapter(made(architecture, variant).float(), None, Source("tiny", "object"))
    ids = torch.randint(3, 128, (20,), generator=torch.Generator().manual_seed(8))
    blocks = record(adapter, ids, Stream.ATTN_PROBS)[0][Site(Stream.ATTN_PROBS, 1)]
    *_, heads = record(adapter, ids, Stream.HEADS)[0][Site(Stream.HEADS, 1)]
    if variant == "default":
        assert heads.gate is None and blocks[0].gate is None
        return
    (seen,) = [each for each in shown(adapter.model, ids[None]) if each["module"].layer_idx == 1]
    scale = seen["module"].variant.scale(seen["states"])[0]  # [query, head, ...]
    joined = torch.cat([block.gate for block in sorted(blocks, key=lambda block: block.first_query)], dim=1)
    torch.testing.assert_close(joined, scale.mean(-1).t(), rtol=1e-4, atol=1e-5)
    if variant == "context_scale":
        torch.testing.assert_close(heads.gate, scale[..., 0].t(), rtol=1e-4, atol=1e-5)
