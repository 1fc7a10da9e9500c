"""What cannot be attacked is told in one sentence, and nothing is left half-written."""

import pytest
import torch

from monadnock import MonadnockError
from monadnock.models import Adapter, Source
from monadnock.scanning import scan
from tests.attacking.conftest import TOKENIZER, planted
from tests.tiny import tiny_model


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"modes": ["zeros"]}, "There is no mode 'zeros': did you mean zero"),
        ({"modes": []}, "No mode was asked for"),
        ({"modes": ["zero", "zero"]}, "Mode zero was asked twice"),
        ({"ks": []}, "No k was asked for"),
        ({"ks": [-1]}, "k = -1"),
        ({"ks": [0], "modes": ["zero"]}, "k = 0 was asked of zero; only retain can keep none"),
        ({"layers": [0, 1], "modes": ["super"], "ks": [1]}, "super weights of one layer are attacked at a time"),
        ({"layers": []}, "No layer was named"),
        ({"ks": [65]}, "k = 65 was asked, but llama has 64 rows in W_up"),
        ({"ks": [51]}, r"only 50 rows of layer 1 are listed; name the layer \(--layer 1\)"),
        ({"layers": [9]}, "Layer 9 was asked, but llama has the layers 0 to 3"),
        ({"layers": [1, 1]}, "Layer 1 was asked twice"),
        ({"expert": 0}, "Expert 0 was asked, but llama is dense"),
        ({"rows": [70]}, "Row 70 was asked"),
        ({"rows": [7], "ks": [2]}, "only 1 rows of layer 1"),
        ({"modes": ["gain"]}, "Family llama has no norm behind attention or FFN"),
        ({"modes": ["activation-zero"], "ks": [9]}, "the run lists 8 features of h"),
        ({"modes": ["mask"], "ks": [24]}, "24 keys were to be masked"),
        ({"modes": ["prefix"], "ks": [250]}, "more than the 256"),
        ({"metrics": ["perplexty"]}, "There is no metric 'perplexty': did you mean perplexity"),
        ({"metrics": ["kl:3"]}, "Metric kl takes no arguments"),
        ({"metrics": ["kl", "kl"]}, "asked twice"),
        ({"metrics": []}, "No metric was asked for"),
        ({"metrics": ["generation:nowhere.txt"]}, "Text file nowhere.txt cannot be read"),
        ({"stride": 40}, "A stride of 40 was asked"),
        ({"seeds": 0}, "0 seeds were asked"),
        ({"limit": 5}, "no tasks were asked for"),
    ],
)
def test_impossible_requests(llama, run_attack, options, told):
    with pytest.raises(MonadnockError, match=told):
        run_attack(llama, **options)


def test_more_rows_than_the_run_lists_with_the_layer_named(llama, run_attack):
    run = run_attack(llama, layers=[1], ks=[60], modes=["zero"])
    assert len(run.table("effects").filter(mode="zero")["targets"][0].split()) == 62


def test_an_empty_file_of_prompts(llama, run_attack, tmp_path):
    (tmp_path / "prompts.txt").write_text("\n\n")
    with pytest.raises(MonadnockError, match="holds no line"):
        run_attack(llama, metrics=[f"generation:{tmp_path / 'prompts.txt'}"])


def test_prompts_of_ones_own(llama, run_attack, tmp_path):
    (tmp_path / "prompts.txt").write_text("w1 w2\n\nw3\n")
    run = run_attack(llama, ks=[1], modes=["zero"], metrics=[f"generation:{tmp_path / 'prompts.txt'}"])
    assert run.table("generations").filter(mode="none")["prompt"].to_list() == ["w1 w2", "w3"]


def test_an_expert_that_the_start_token_does_not_reach(text, run_attack):
    mixtral = planted("mixtral", text)
    with pytest.raises(MonadnockError, match="does not get the start token"):
        run_attack(mixtral, expert=_other(mixtral))


def test_the_rows_of_another_expert_by_hand(text, run_attack):
    mixtral = planted("mixtral", text)
    other = _other(mixtral)
    run = run_attack(mixtral, expert=other, rows=[3, 5], ks=[2], modes=["zero"])
    row = run.table("effects").filter(mode="zero").row(0, named=True)
    assert (row["layer"], row["expert"], row["targets"]) == (1, other, f"layer 1 expert {other}: 3 5")


def _other(adapter):
    return next(expert for expert in range(9) if expert != _preferred(adapter))


def _preferred(adapter):
    from monadnock.models.start import start_states

    return start_states(adapter, TOKENIZER.bos_token_id).experts[1]


def test_a_run_of_another_model(llama, run_attack, text, tmp_path):
    other = Adapter(tiny_model("llama", seed=1), TOKENIZER, Source("another", "object"))
    scan(other, text=text, out=tmp_path / "run", length=24, tokens=24, progress=False)
    with pytest.raises(MonadnockError, match="is a run of another, the model is llama"):
        run_attack(llama, ks=[1])
    revised = Adapter(llama.model, TOKENIZER, Source("another", "object", "v2"))
    with pytest.raises(MonadnockError, match="is a run of another, the model is another at v2"):
        run_attack(revised, ks=[1])
    half = Adapter(tiny_model("llama", seed=1).to(torch.bfloat16), TOKENIZER, Source("another", "object"))
    with pytest.raises(MonadnockError, match="dtype float32, the model is dtype bfloat16"):
        run_attack(half, ks=[1])


def test_a_refused_request_leaves_no_run_behind(llama, run_attack, tmp_path):
    for options in ({"layers": [9]}, {"ks": [65]}, {"expert": 0}, {"rows": [70]}, {"modes": ["gain"]}):
        with pytest.raises(MonadnockError):
            run_attack(llama, **options)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["model.layers.2.mlp.down_proj.weight", "lm_head.weight"])
def test_the_same_name_with_other_weights(text, run_attack, part):
    adapter = planted("llama", text)
    run = run_attack(adapter, ks=[1], modes=["zero"])
    assert run_attack(adapter, ks=[2], modes=["zero"]).table("effects").height == 3 * 3
    with torch.no_grad():
        adapter.model.get_parameter(part).mul_(1.5)
    height = run.table("effects").height
    with pytest.raises(MonadnockError, match="with other weights"):
        run_attack(adapter, ks=[1, 2, 3], modes=["zero"])
    assert run.table("effects").height >= height


def test_a_run_without_targets(llama, run_attack, text, tmp_path):
    scan(llama, text=text, out=tmp_path / "run", length=24, tokens=24, probes=["parameters"], progress=False)
    with pytest.raises(MonadnockError, match="scan with the probe start_token"):
        run_attack(llama)


def test_a_folder_with_other_files_is_left_alone(llama, run_attack, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(MonadnockError, match="holds files that are not a run"):
        run_attack(llama)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.txt"]
