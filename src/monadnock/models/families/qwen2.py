"""Qwen2: laid out like Llama, with biases on q, k and v only; some layers may slide (`layer_types`)."""

from monadnock.models.family import Family

FAMILY = Family(model_type="qwen2")
