"""A recipe that trains in a second: a tiny model on a short task."""

import pytest
import yaml

SMALL = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "attn_pdrop": 0.0, "resid_pdrop": 0.1, "embd_pdrop": 0.0},
    "llama": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2},
}


@pytest.fixture
def recipe(tmp_path):
    """Return a function that writes a recipe with changes."""

    def write(name="tiny", architecture="gpt2", **changes):
        content = {
            "architecture": architecture,
            "model": SMALL[architecture],
            "data": {"task": "backcopy", "length": 15, "tokens": 10, "triggers": 3},
            "steps": 12,
            "batch": 4,
            "rate": 0.01,
            "warmup": 2,
            "watch": 5,
            "held": 8,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content | changes))
        return path

    return write
