"""The format of a recipe as llm-compressor 0.14 and compressed-tensors 0.20 read it, written down as checks."""

from typing import Any

KEYS = {"targets", "weights", "input_activations", "output_activations", "format"}
WEIGHTS = {"num_bits", "type", "symmetric", "strategy", "group_size", "dynamic", "observer"}


def check_recipe(found: Any) -> dict:
    """Assert that a recipe has one stage with one QuantizationModifier and one scheme, and return its parts.

    Recipe.from_dict looks for keys that end with _stage, in these for keys that end with _modifiers, and gives what is
    under a modifier's name to its constructor, which forbids unknown arguments.
    """
    (stage,) = found
    assert stage.endswith("_stage")
    (group,) = found[stage]
    assert group.endswith("_modifiers")
    ((name, modifier),) = found[stage][group].items()
    assert name == "QuantizationModifier"
    assert set(modifier) == {"ignore", "config_groups"}
    assert isinstance(modifier["ignore"], list) and all(isinstance(entry, str) for entry in modifier["ignore"])
    (scheme,) = modifier["config_groups"].values()
    assert set(scheme) <= KEYS
    assert scheme["targets"] and all(isinstance(entry, str) for entry in scheme["targets"])
    weights = scheme["weights"]
    assert set(weights) <= WEIGHTS
    assert type(weights["num_bits"]) is int and weights["type"] == "int" and weights["symmetric"] is True
    assert weights["strategy"] in ("tensor", "channel", "group")
    assert ("group_size" in weights) == (weights["strategy"] == "group")
    return {"ignore": modifier["ignore"], "targets": scheme["targets"], **weights}
