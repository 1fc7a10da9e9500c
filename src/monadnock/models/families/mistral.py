"""Mistral: laid out like Llama; the first release attends only to the last 4096 tokens, later ones to all."""

from monadnock.models.family import Family

FAMILY = Family(model_type="mistral")
