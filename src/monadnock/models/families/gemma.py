"""Gemma: norms multiply by 1 + weight, embeddings are scaled by sqrt(d_model)."""

from monadnock.models.family import Family

FAMILY = Family(model_type="gemma", norm_offset=1.0)
