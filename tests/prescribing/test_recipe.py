"""Recipes: the format, the way there and back, hostile names, and what is refused in one sentence."""

import re
import string

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from monadnock.errors import MonadnockError
from monadnock.prescribing import Recipe, read_recipe, write_recipe
from monadnock.prescribing.naming import by_path, experts_of, ignored, literal
from tests.prescribing.recipe_format import check_recipe
from tests.report.conftest import HOSTILE

NAMES = st.text(string.ascii_letters + "_.", min_size=1) | st.text() | st.sampled_from(HOSTILE)
SCHEMES = st.one_of(
    st.tuples(st.integers(2, 8), st.sampled_from(["tensor", "row"]), st.none()),
    st.tuples(st.integers(2, 8), st.just("group"), st.integers(1, 512)),
)


@given(SCHEMES, st.lists(NAMES, max_size=4), st.text())
def test_a_recipe_is_read_back_as_it_was_and_has_the_format(tmp_path_factory, scheme, names, note):
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    recipe = Recipe(*scheme, ignore=("lm_head", *map(literal, names)))
    write_recipe(recipe, path, (note,))
    assert read_recipe(path) == recipe
    text = path.read_text(encoding="utf-8")
    assert all(line.startswith("#") for line in text.partition("quant_stage:")[0].splitlines())
    asked = check_recipe(yaml.safe_load(text))
    assert asked["ignore"] == list(recipe.ignore) and asked["num_bits"] == recipe.bits


@given(NAMES, NAMES)
def test_an_entry_for_a_name_matches_this_name_only(name, other):
    recipe = Recipe(4, "row", ignore=(literal(name),))
    assert recipe.keeps(name)
    if other.rstrip("\n") != name.rstrip("\n"):  # $ allows one line break
        assert not recipe.keeps(other)


def test_entries_by_path_and_of_experts():
    recipe = Recipe(4, "row", ignore=(by_path(1, "mlp.down_proj"), experts_of("model.layers.2.mlp.experts.down_proj")))
    kept = {
        "model.layers.1.mlp.down_proj": True,
        "model.layers.11.mlp.down_proj": False,
        "model.layers.1.mlp.up_proj": False,
        "gpt_neox.layers.1.mlp.down_proj": True,
        "model.layers.2.mlp.experts.gate_up_proj": True,
        "model.layers.2.mlp.experts.13.w1": True,
        "model.layers.2.mlp.gate": False,
        "model.layers.20.mlp.experts.down_proj": False,
    }
    assert {name: recipe.keeps(name) for name in kept} == kept
    assert experts_of("model.layers.2.mlp.experts.3.w1") == experts_of("model.layers.2.mlp.experts.down_proj")


def test_what_has_no_name_is_found_by_its_path_and_what_is_fused_is_named_once():
    paths = {"q": "attn.qkv", "k": "attn.qkv", "v": "attn.qkv", "up": "mlp.up", "gate": None}.get
    rows = [{"layer": 3, "module": "v", "expert": None, "name": None}]
    assert ignored(rows, "phi3", paths) == ("lm_head", r"re:.*\.3\.attn\.qkv$")
    rows = [{"layer": 3, "module": "up", "expert": None, "name": "model.layers.3.mlp.up"}]
    assert ignored(rows, "opt", paths) == ("lm_head", r"re:.*\.project_(in|out)$", "model.layers.3.mlp.up")


@pytest.mark.parametrize("targets", [("Linear",), (r"re:.*proj$",), ("model.layers.0.mlp.up_proj",)])
def test_what_is_no_target_is_kept(targets):
    recipe = Recipe(8, "tensor", targets=targets, ignore=())
    assert not recipe.keeps("model.layers.0.mlp.up_proj")
    assert recipe.keeps("model.embed") == (targets != ("Linear",))


def write(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def modifier(rest, name="QuantizationModifier"):
    return f"a_stage:\n  b_modifiers:\n    {name}:\n" + "".join(f"      {line}\n" for line in rest.splitlines())


@pytest.mark.parametrize(
    ("text", "recipe"),
    [
        ("scheme: W4A16\nignore: [lm_head]", Recipe(4, "group", 128)),
        ("scheme: w8a16\ntargets: Linear", Recipe(8, "group", 128, ignore=())),
        ("scheme: W8A16\ntargets: ['re:.*up$']", Recipe(8, "group", 128, ("re:.*up$",), ())),
        (
            "config_groups: {g: {targets: [Linear], weights: {num_bits: 4, group_size: 32}}}",
            Recipe(4, "group", 32, ignore=()),
        ),
        (
            "config_groups: {g: {targets: [Linear], weights: {num_bits: 4, group_size: -1}}}",
            Recipe(4, "row", ignore=()),
        ),
        ("config_groups: {g: {targets: [Linear], weights: {}}}", Recipe(8, "tensor", ignore=())),
    ],
)
def test_other_ways_to_say_the_same(tmp_path, text, recipe):
    assert read_recipe(write(tmp_path, modifier(text))) == recipe


def test_what_llm_compressor_itself_writes_is_read(tmp_path):
    """Its Recipe.yaml() gives every field of the modifier."""
    text = """quant_stage:
  quant_modifiers:
    QuantizationModifier:
      config_groups:
        group_0:
          targets: [Linear]
          weights: {num_bits: 4, type: int, symmetric: true, group_size: null, strategy: channel,
            dynamic: false, observer: memoryless_minmax}
          input_activations: null
          output_activations: null
          format: null
      targets: [Linear]
      ignore: [lm_head, 're:.*\\.1\\.self_attn\\.q_proj$']
      bypass_divisibility_checks: false
      requires_calibration_data: false
"""
    recipe = read_recipe(write(tmp_path, text))
    assert recipe == Recipe(4, "row", ignore=("lm_head", r"re:.*\.1\.self_attn\.q_proj$"))


GROUP = "config_groups: {g: {targets: [Linear], weights: {num_bits: 4%s}%s}}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has to hold one QuantizationModifier"),
        ("[1, 2]", "has to hold one QuantizationModifier"),
        ("a: [", "is no YAML"),
        ("a: !!python/object/apply:os.system [ls]", "is no YAML"),
        ("[" * 5000, "is no YAML"),
        ("\x00", "is no YAML"),
        ("a_stage: {b_modifiers: {}}", "found: none"),
        ("a_stage: {b_modifiers: 3}", "found: none"),
        (modifier("scheme: W4A16") + "    GPTQModifier: {}\n", "found: QuantizationModifier, GPTQModifier"),
        (modifier("block_size: 128", "GPTQModifier"), "asks for a GPTQModifier, which monadnock has not"),
        (modifier("scheme: W8A8"), "'W8A8' is not one of W2A16 to W8A16"),
        (modifier("scheme: FP8"), "'FP8' is not one of"),
        (modifier("ignore: [lm_head]"), "give either scheme or config_groups"),
        (modifier("scheme: W4A16\n" + GROUP % ("", "")), "give either scheme or config_groups"),
        (modifier("schema: W4A16"), "schema: Extra inputs"),
        (modifier("scheme: W4A16\nkv_cache_scheme: {num_bits: 8}"), "kv_cache_scheme"),
        (modifier(GROUP % (", symmetric: false", "")), "symmetric: Input should be True"),
        (modifier(GROUP % (", type: float", "")), "type: Input should be 'int'"),
        (modifier(GROUP % (", strategy: block", "")), "strategy"),
        (modifier(GROUP % (", strategy: group", "")), "Granularity group was asked with groups of None"),
        (modifier(GROUP % (", strategy: channel, group_size: 32", "")), "Granularity row was asked with groups of 32"),
        (modifier(GROUP % (", dynamic: true", "")), "dynamic"),
        (modifier(GROUP % ("", ", input_activations: {num_bits: 8}")), "input_activations"),
        (modifier("config_groups: {g: {targets: [Linear], weights: {num_bits: 16}}}"), "num_bits"),
        (modifier("config_groups: {g: {targets: [Linear], weights: {num_bits: four}}}"), "num_bits"),
        (modifier("config_groups: {g: {targets: [Linear]}}"), "weights: Field required"),
        (modifier("config_groups: {a: {targets: [x], weights: {}}, b: {targets: [y], weights: {}}}"), "config_groups"),
        (modifier("scheme: W4A16\nignore: ['re:(']"), "is no regular expression"),
        (modifier("scheme: W4A16\nignore: [3]"), "ignore.0"),
        ("a_stage: {b_modifiers: {QuantizationModifier: 7}}", "asks for something that monadnock does not do"),
    ],
)
def test_what_cannot_be_followed_is_told_in_one_sentence(tmp_path, text, told):
    with pytest.raises(MonadnockError) as error:
        read_recipe(write(tmp_path, text))
    assert told in str(error.value)
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 600


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(MonadnockError, match="cannot be read"):
            read_recipe(path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(MonadnockError, match="is no YAML"):
        read_recipe(tmp_path / "bytes.yaml")


@pytest.mark.parametrize(
    "scheme", [(1, "row"), (9, "row"), (4, "rows"), (4, "group"), (4, "row", 16), (4, "group", 0), (4, "tensor", 16)]
)
def test_settings_that_do_not_go_together(scheme):
    with pytest.raises(MonadnockError):
        Recipe(*scheme)


def test_llm_compressor_takes_it(tmp_path):
    """Where the package is there: its own classes build the modifier, and it rounds what `keeps` leaves."""
    recipes = pytest.importorskip("llmcompressor.recipe")
    import torch

    from tests.tiny import tiny_model

    path = tmp_path / "recipe.yaml"
    for recipe in (
        Recipe(4, "row", ignore=("lm_head", "model.layers.0.mlp.down_proj", by_path(1, "self_attn.q_proj"))),
        Recipe(8, "tensor"),
        Recipe(3, "group", 16),
    ):
        write_recipe(recipe, path)
        (found,) = recipes.Recipe.create_instance(str(path)).modifiers
        model = tiny_model("llama")
        found.initialize_quantization(model)
        linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
        rounded = [name for name in linear if getattr(model.get_submodule(name), "quantization_scheme", None)]
        assert rounded == [name for name in linear if not recipe.keeps(name)]
        again = write(tmp_path, recipes.Recipe.create_instance(str(path)).yaml())
        assert read_recipe(again) == recipe
        assert re.search(r"num_bits: \d", again.read_text(encoding="utf-8"))
