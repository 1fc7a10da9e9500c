"""Llama: the plain case, every projection a linear layer of its own."""

from monadnock.models.family import Family

FAMILY = Family(model_type="llama")
