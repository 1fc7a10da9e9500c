"""What a model reads through masks, and that its own weights are never touched."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from monadnock.attacking.targets import Aim
from monadnock.errors import MonadnockError
from monadnock.models import Adapter, Source
from monadnock.training.macdrop import bare_adapter
from monadnock.training.masks import SCOPES, MaskedRows
from tests.tiny import tiny_model
from tests.training.training_data import (
    FAMILIES,
    LAYER,
    ROWS,
    Killed,
    activation,
    an_expert,
    assert_equal,
    assert_same,
    bits,
    breaks,
    frozen,
    gradients,
    hooks,
    logits_of,
    loss_of,
    masked_by_hand,
    matrices,
    read_by_ffn,
    with_adapter,
)

pytestmark = pytest.mark.usefixtures("one_thread")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_made = {}


def made(model_type, dtype=torch.float32):
    if (model_type, dtype) not in _made:
        _made[model_type, dtype] = frozen(model_type, dtype)
    return _made[model_type, dtype]


@pytest.fixture(params=FAMILIES)
def adapter(request):
    """A frozen model of a family, which has to be as it was afterwards."""
    adapter = made(request.param)
    before = bits(adapter.model)
    yield adapter
    adapter.model.eval()
    assert_same(adapter.model, before)
    assert hooks(adapter.model) == 0


@pytest.fixture
def rows(adapter):
    """Masks of ROWS, drawn and read in training mode."""
    rows = MaskedRows(adapter, [aim(adapter)])
    rows.draw(0.5, seed=1)
    rows.active = True
    adapter.model.train()
    yield rows
    rows.remove()


def aim(adapter, chosen=ROWS, layer=LAYER):
    return Aim(layer, an_expert(adapter), tuple(chosen))


@pytest.mark.parametrize("model_type", FAMILIES)
@settings(max_examples=16)
@given(
    dtype=st.sampled_from(DTYPES),
    p=st.floats(0, 1),
    scope=st.sampled_from(SCOPES),
    chosen=st.lists(st.integers(0, 47), min_size=1, max_size=6, unique=True),
    layer=st.integers(0, 2),
    seed=st.integers(0, 2**40),
)
def test_masks_drop_a_share_of_p_in_the_scope_and_nothing_else(model_type, dtype, p, scope, chosen, layer, seed):
    if dtype is torch.float64 and made(model_type).num_experts:
        dtype = torch.float32  # experts multiply in nothing wider
    adapter = made(model_type, dtype)
    expert, before = an_expert(adapter), bits(adapter.model)
    own = {role: part.clone() for role, part in matrices(adapter, layer, expert).items()}
    masks = MaskedRows(adapter, [aim(adapter, chosen, layer)], scope)
    share = masks.draw(p, seed)
    masks.active = True
    read = read_by_ffn(adapter, layer, expert, adapter.model.train())
    masks.remove()
    adapter.model.eval()
    assert_same(adapter.model, before)
    height, width = own["up"].shape
    here = torch.tensor([scope == "all" or (row in chosen) == (scope == "massive") for row in range(height)])
    dropped = read["up"] == 0
    assert torch.equal(dropped[here], read["gate" if "gate" in read else "up"][here] == 0)
    for role, part in read.items():
        assert torch.equal(part, own[role].masked_fill(dropped, 0))
        assert torch.equal(part[~here], own[role][~here])
    count = int(here.sum()) * width
    assert share == pytest.approx(float(dropped[here].sum()) / count)
    assert abs(share - p) <= 5 * math.sqrt(p * (1 - p) / count) + 1 / count


def test_no_probability_drops_nothing_and_certainty_drops_all(adapter, rows):
    expert = an_expert(adapter)
    assert rows.draw(0.0, seed=3) == 0
    assert_equal(read_by_ffn(adapter, expert=expert), matrices(adapter, expert=expert))
    assert rows.draw(1.0, seed=3) == 1
    assert all((part[list(ROWS)] == 0).all() for part in read_by_ffn(adapter, expert=expert).values())


def test_a_draw_forgets_the_one_before_and_depends_on_its_seed_alone(adapter, rows):
    expert = an_expert(adapter)
    reads = []
    for seed in (1, 2, 1):
        torch.manual_seed(len(reads))
        rows.draw(0.5, seed)
        reads.append(read_by_ffn(adapter, expert=expert)["up"])
    assert torch.equal(reads[0], reads[2])
    assert not torch.equal(reads[0], reads[1])


def test_masks_do_not_move_the_random_state(adapter, rows):
    """Dropout of an adapter, or the order of the data, is what it would be without them."""
    before = torch.random.get_rng_state()
    rows.draw(0.5, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_weight_is_dropped_at_its_own_time(adapter, rows):
    """Over many draws each single weight of the rows is dropped with probability p."""
    expert, draws, p = an_expert(adapter), 400, 0.3
    count = torch.zeros(len(ROWS), matrices(adapter, expert=expert)["up"].shape[1])
    copies = [copy for _, views in rows._parts for _, copy in views]
    for seed in range(draws):
        rows.draw(p, seed)
        count += copies[0][sorted(ROWS)] == 0
    assert ((count / draws - p).abs() < 5 * math.sqrt(p * (1 - p) / draws)).all()


def test_the_model_keeps_its_own_parameters_before_during_and_after(adapter, rows):
    """A look at every parameter from inside the pass, between the layers."""
    before, looks = bits(adapter.model), []

    def look(*_):
        assert_same(adapter.model, before)
        looks.append(adapter.model.state_dict().keys())

    places = [*adapter.layers, adapter.norm(LAYER, "attn_input"), adapter.norm(LAYER, "mlp_input")]
    handles = [place.register_forward_pre_hook(look) for place in places]
    try:
        logits_of(adapter.model)
    finally:
        for handle in handles:
            handle.remove()
    assert len(looks) == len(places)
    assert_same(adapter.model, before)


def test_in_evaluation_and_between_steps_logits_are_those_of_the_model(adapter, rows):
    rows.active = False
    in_training = logits_of(adapter.model)
    rows.active = True
    assert not torch.equal(logits_of(adapter.model), in_training)
    found = logits_of(adapter.model.eval())
    rows.active = False
    assert torch.equal(logits_of(adapter.model.train()), in_training)
    rows.remove()
    assert torch.equal(logits_of(adapter.model), in_training)
    assert torch.equal(logits_of(adapter.model.eval()), found)


@pytest.mark.parametrize("scope", SCOPES)
def test_logits_are_those_of_a_model_masked_by_hand(adapter, scope):
    expert = an_expert(adapter)
    masks = MaskedRows(adapter, [aim(adapter)], scope)
    masks.draw(0.5, seed=1)
    masks.active = True
    found, read = logits_of(adapter.model.train()), read_by_ffn(adapter, expert=expert)
    masks.remove()
    assert torch.equal(logits_of(masked_by_hand(adapter.model, read, expert=expert)), found)
    assert not torch.equal(logits_of(adapter.model), found)


def test_several_layers_and_experts_are_masked_together_each_in_its_own_way():
    for model_type, places in (("llama", [(0, None), (2, None)]), ("mixtral", [(1, 0), (1, 3), (2, 1)])):
        adapter = made(model_type)
        by_hand = adapter.model
        masks = MaskedRows(adapter, [Aim(layer, expert, ROWS) for layer, expert in places])
        masks.draw(0.5, seed=1)
        masks.active = True
        found = logits_of(adapter.model.train())
        reads = [read_by_ffn(adapter, layer, expert) for layer, expert in places]
        masks.remove()
        for (layer, expert), read in zip(places, reads, strict=True):
            by_hand = masked_by_hand(by_hand, read, layer, expert)
        assert torch.equal(logits_of(by_hand), found)
        masks = [read["up"] == 0 for read in reads]
        assert all(not torch.equal(masks[0], mask) for mask in masks[1:])
        others = [expert for expert in range(adapter.num_experts or 0) if (1, expert) not in places]
        for expert in others:
            assert_equal(read_by_ffn(adapter, 1, expert), matrices(adapter, 1, expert))
        adapter.model.eval()


# gradients

CHECKPOINTING = {"plain": None, "reentrant": True, "not-reentrant": False}


def prepared(model, reentrant):
    if reentrant is not None:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        model.enable_input_require_grads()
        assert model.is_gradient_checkpointing
    return model.train()


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("checkpointing", CHECKPOINTING)
@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_gradients_of_adapters_are_those_of_a_model_masked_by_hand(model_type, method, checkpointing):
    if method == "dora" and model_type in ("mixtral", "gpt_oss"):
        pytest.skip("peft has no DoRA on experts")
    model = prepared(with_adapter(frozen(model_type).model, method), CHECKPOINTING[checkpointing])
    adapter = bare_adapter(model, None)
    expert, before, plain, number = an_expert(made(model_type)), bits(model), gradients(model), hooks(model)
    masks = MaskedRows(adapter, [Aim(LAYER, expert, ROWS)])
    masks.active = True
    masks.draw(0.0, seed=1)
    assert_equal(gradients(model), plain)
    masks.draw(0.6, seed=1)
    masked, read = gradients(model), read_by_ffn(adapter, expert=expert, model=model)
    assert_same(model, before)
    masks.remove()
    assert hooks(model) == number
    assert_equal(gradients(model), plain)
    by_hand = masked_by_hand(model, read, expert=expert)
    if CHECKPOINTING[checkpointing] is not None:
        by_hand.enable_input_require_grads()  # a hook that a copy does not have
    assert_equal(gradients(by_hand), masked)
    assert any(not torch.equal(masked[name], plain[name]) for name in plain)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("checkpointing", ["reentrant", "not-reentrant"])
def test_checkpointing_changes_no_gradient(checkpointing):
    found = []
    for how in ("plain", checkpointing):
        model = prepared(with_adapter(frozen("llama").model), CHECKPOINTING[how])
        masks = MaskedRows(bare_adapter(model, None), [Aim(LAYER, None, ROWS)])
        masks.active = True
        masks.draw(0.6, seed=1)
        found.append(gradients(model))
    assert_equal(found[1], found[0])


def test_masks_may_be_gone_before_the_backward_pass():
    """A backward pass holds what the forward pass read, whatever the weights are by then."""
    model = with_adapter(frozen("llama").model).train()
    masks = MaskedRows(bare_adapter(model, None), [Aim(LAYER, None, ROWS)])
    masks.draw(0.6, seed=1)
    masks.active = True
    expected = gradients(model)
    model.zero_grad(set_to_none=True)
    loss = loss_of(model)
    masks.remove()
    loss.backward()
    assert_equal({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, expected)


# what ends early, and what is refused


@pytest.mark.parametrize("kind", [Killed, KeyboardInterrupt])
def test_after_an_exception_the_weights_are_back(adapter, rows, kind):
    before, unmasked = bits(adapter.model), hooks(adapter.model)
    with breaks(activation(adapter), kind), pytest.raises(kind):
        logits_of(adapter.model)
    rows.active = False
    if kind is Killed:
        assert_same(adapter.model, before)
    assert hooks(adapter.model) == unmasked
    rows.remove()
    assert_same(adapter.model, before)
    assert hooks(adapter.model) == 0


def test_after_ctrl_c_an_evaluation_reads_the_weights_as_they_are(adapter, rows):
    """PyTorch runs no hook on KeyboardInterrupt, so the next pass has to put the weights back before it reads them."""
    rows.active = False
    expected = logits_of(adapter.model.eval())
    rows.active = True
    with breaks(activation(adapter), KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        logits_of(adapter.model.train())
    assert torch.equal(logits_of(adapter.model.eval()), expected)


def test_an_exception_under_an_adapter_of_experts_leaves_the_model_as_it_was():
    """peft swaps the same parameter inside the FFN, and both have to be undone."""
    model = with_adapter(frozen("mixtral").model).train()
    adapter, before = bare_adapter(model, None), bits(model)
    masks = MaskedRows(adapter, [Aim(LAYER, 2, ROWS)])
    masks.draw(0.5, seed=1)
    masks.active = True
    with breaks(adapter.layers[LAYER].mlp.experts.base_layer.base_layer, Killed), pytest.raises(Killed):
        loss_of(model)
    assert_same(model, before)
    assert read_by_ffn(adapter, expert=2, model=model)["up"][list(ROWS)].eq(0).any()
    masks.remove()
    assert_same(model, before)


def test_removing_twice_is_no_harm(adapter, rows):
    rows.remove()
    rows.remove()
    assert hooks(adapter.model) == 0


REFUSED = {
    "layer": ("llama", Aim(3, None, (0,)), "Layer 3 was asked, but .* 0 to 2"),
    "negative layer": ("llama", Aim(-1, None, (0,)), "Layer -1 was asked"),
    "row": ("llama", Aim(1, None, (5, 48)), "Row 48 was asked, .* 0 to 47"),
    "negative row": ("phi3", Aim(1, None, (-1,)), "Row -1 was asked"),
    "row beyond half of a fused weight": ("phi3", Aim(1, None, (48,)), "Row 48 was asked, .* 0 to 47"),
    "row beyond an expert": ("gpt_oss", Aim(1, 0, (48,)), "Row 48 was asked, .* 0 to 47"),
    "no expert": ("mixtral", Aim(1, None, (0,)), "experts.*say which"),
    "expert": ("mixtral", Aim(1, 4, (0,)), "Expert 4 was asked"),
    "negative expert": ("gpt_oss", Aim(1, -1, (0,)), "Expert -1 was asked"),
    "expert of a dense model": ("llama", Aim(1, 0, (0,)), "Expert 0 was asked, .* dense"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_exist_is_told_and_nothing_is_left_behind(case):
    model_type, wrong, told = REFUSED[case]
    adapter = made(model_type)
    before, right = bits(adapter.model), Aim(0, an_expert(adapter), (0,))
    with pytest.raises(MonadnockError, match=told):
        MaskedRows(adapter, [right, wrong])
    assert_same(adapter.model, before)
    assert hooks(adapter.model) == 0


def test_an_unknown_scope_is_told():
    with pytest.raises(MonadnockError, match=r"no scope 'masive'.*massive"):
        MaskedRows(made("llama"), [Aim(1, None, (0,))], "masive")


def test_weights_that_are_trained_themselves_are_refused():
    for model_type in FAMILIES:
        model = tiny_model(model_type)
        adapter = Adapter(model, None, Source(model_type, "object"))
        with pytest.raises(MonadnockError, match=r"trained itself.*train adapters .LoRA, DoRA., or freeze it"):
            MaskedRows(adapter, [aim(adapter)])
        assert hooks(model) == 0


class Packed(torch.Tensor):
    """As torchao has it: says that it is float32, but is no plain tensor."""


@pytest.mark.parametrize("kind", ["uint8", "int8", "float8", "packed", "without a weight"])
def test_quantised_weights_are_refused(kind):
    adapter = frozen("llama")
    owner = adapter.layers[LAYER].mlp.up_proj
    if kind == "packed":
        owner._parameters["weight"] = nn.Parameter(owner.weight.detach().as_subclass(Packed), requires_grad=False)
    elif kind == "without a weight":
        packed = nn.Module()  # as GPTQ and AWQ have it
        packed.register_buffer("qweight", torch.zeros(4, 48, dtype=torch.int32))
        adapter.layers[LAYER].mlp.up_proj = packed
    else:
        dtype = {"uint8": torch.uint8, "int8": torch.int8, "float8": torch.float8_e4m3fn}[kind]
        owner.weight = nn.Parameter(torch.zeros(48, 32).to(dtype), requires_grad=False)
    with pytest.raises(MonadnockError, match=r"layer 1 is quantised .*bfloat16, float16 or float32"):
        MaskedRows(adapter, [aim(adapter)])
    assert hooks(adapter.model) == 0


def test_weights_that_are_not_there_are_refused():
    adapter = frozen("llama")
    adapter.layers[LAYER].mlp.up_proj.to("meta")
    with pytest.raises(MonadnockError, match=r"not whole on this device .offloaded"):
        MaskedRows(adapter, [aim(adapter)])
    assert hooks(adapter.model) == 0


def test_experts_in_a_form_of_their_own_are_refused():
    """gpt-oss in mxfp4 has blocks and scales where its weights would be."""
    adapter = frozen("gpt_oss")
    experts = adapter.layers[LAYER].mlp.experts
    packed = experts._parameters.pop("gate_up_proj")
    experts.register_buffer("gate_up_proj_blocks", packed.to(torch.uint8))
    with pytest.raises(MonadnockError, match=r"quantised|not whole"):
        MaskedRows(adapter, [aim(adapter)])


def test_a_matrix_that_peft_trains_whole_is_refused():
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["up_proj"])
    model = get_peft_model(frozen("llama").model, config)
    with pytest.raises(MonadnockError, match="trained itself"):
        MaskedRows(bare_adapter(model, None), [Aim(LAYER, None, ROWS)])
