"""The walk gives the inputs that the model's own layers get, in every family, and also after a change on the way."""

import pytest
import torch

from monadnock.calibrating import walk
from monadnock.data.windows import Windows
from monadnock.models import Adapter, Source, observe
from monadnock.models.family import families
from monadnock.models.matrices import Matrix, find_matrices
from monadnock.sites import Site, Stream
from tests.tiny import tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


def windows(count=2, length=12):
    ids = torch.randint(3, 120, (count, length), generator=torch.Generator().manual_seed(1))
    return Windows(ids, False, "drawn", 0)


def adapt(model_type, **changes):
    return Adapter(tiny_model(model_type, **changes), None, Source(model_type, "object"))


@pytest.mark.parametrize("model_type", families())
def test_moments_are_those_of_what_each_linear_layer_gets(model_type):
    adapter, text = adapt(model_type), windows()
    seen = {}
    for inputs in walk(adapter, text, find_matrices(adapter)):
        for matrix in inputs.matrices:
            moment = inputs.moment(matrix)
            seen[matrix] = None if moment is None else (moment.products, int(moment.tokens))
    assert len({matrix.layer for matrix in seen}) == adapter.num_layers
    streams = {"q": Stream.ATTN_INPUT, "o": Stream.O_PROJ_INPUT, "down": Stream.DOWN_PROJ_INPUT}
    for layer in range(adapter.num_layers):
        for module, stream in streams.items():
            kept = []
            with observe(adapter, {Site(stream, layer): kept.append}):
                for ids in text.ids:
                    adapter.forward(ids)
            values = torch.cat([batch.values for batch in kept]).double()
            if kept[0].expert is None:
                products, tokens = seen[Matrix(layer, module)]
                assert tokens == text.ids.numel()
                torch.testing.assert_close(products, values.t() @ values, rtol=1e-4, atol=1e-4)
                continue
            experts = torch.cat([batch.expert for batch in kept])
            for expert in range(adapter.num_experts):
                mine = values[experts == expert]
                if not len(mine):
                    assert seen[Matrix(layer, module, expert)] is None
                    continue
                products, tokens = seen[Matrix(layer, module, expert)]
                assert tokens == len(mine) == seen[Matrix(layer, "up", expert)][1]
                torch.testing.assert_close(products, mine.t() @ mine, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", ["mixtral", "gpt_oss"])
def test_what_experts_read_is_what_is_routed_to_them(model_type):
    """W_up's moment and W_down's are of the same tokens: x_down follows from the one's inputs."""
    adapter, text = adapt(model_type), windows(1)
    hidden, routed = [], []
    watch = {Site(Stream.MLP_INPUT, 1): hidden.append, Site(Stream.DOWN_PROJ_INPUT, 1): routed.append}
    with observe(adapter, watch):
        adapter.forward(text.ids[0])
    wanted = list(find_matrices(adapter, [1], ["up"]))
    (inputs,) = walk(adapter, text, wanted)
    for matrix in wanted:
        rows = hidden[0].values[routed[0].position[routed[0].expert == matrix.expert]].double()
        moment = inputs.moment(matrix)
        if moment is not None:
            torch.testing.assert_close(moment.products, rows.t() @ rows, rtol=1e-4, atol=1e-5)


def test_with_again_later_layers_see_what_changed_ones_give():
    adapter, text = adapt("llama"), windows()
    with torch.no_grad():
        for inputs in walk(adapter, text, find_matrices(adapter, None, ["down"]), again=True):
            if inputs.layer == 0:
                adapter.weight(0, "down").strided.mul_(-3)
            else:
                found = inputs.moment(Matrix(inputs.layer, "down")).products
    kept = []
    with observe(adapter, {Site(Stream.DOWN_PROJ_INPUT, 2): kept.append}):
        for ids in text.ids:
            adapter.forward(ids)
    values = torch.cat([batch.values for batch in kept]).double()
    torch.testing.assert_close(found, values.t() @ values, rtol=1e-4, atol=1e-4)


def test_later_layers_never_run_and_no_hook_stays():
    adapter, text = adapt("llama"), windows()
    ran = []
    handle = adapter.layers[2].register_forward_hook(lambda *_: ran.append(1))
    list(walk(adapter, text, [Matrix(1, "q")]))
    handle.remove()
    assert not ran
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in adapter.model.modules())
    before = adapter.forward(text.ids[0])
    torch.testing.assert_close(before, adapter.model(text.ids[:1]).logits[0, -1:])


def test_inputs_that_are_not_finite_are_told():
    from monadnock import MonadnockError

    adapter, text = adapt("llama"), windows()
    with torch.no_grad():
        adapter.weight(0, "v").strided[0, 0] = float("nan")
    with pytest.raises(MonadnockError, match=r"Inputs at o_proj_input.0 .* not all finite"):
        list(walk(adapter, text, find_matrices(adapter, [0])))
