"""What lm-eval sees: texts of unequal length are written on one by one, so that positions mean what they say."""

from lm_eval.api.instance import Instance

from monadnock.evaluation.generation import generate
from monadnock.evaluation.harness import language_model
from monadnock.interventions import set_activations
from tests.evaluation.conftest import TOKENIZER

PROMPTS = ["w1 w2 w3 w4 w5 w6 w7", "w8"]


def test_generation_tasks_write_what_generate_writes_under_an_attack_on_position_0(llama):
    requests = [
        Instance("generate_until", {}, (prompt, {"until": ["</s>"], "max_gen_toks": 6, "do_sample": False}), index)
        for index, prompt in enumerate(PROMPTS)
    ]
    with set_activations(llama, 1, {3: 40.0, 5: -30.0}):
        expected = [TOKENIZER.decode(ids) for ids in generate(llama, PROMPTS, tokens=6)]
        with language_model(llama, bos=True) as model:
            found = model.generate_until(requests, disable_tqdm=True)
    assert [text.split() for text in found] == [text.split("</s>")[0].split() for text in expected]
