"""Attention variants: models of the Llama and GPT-2 kind whose attention is another function (an2025, table 2)."""

from monadnock.models.variants.classes import build as build
from monadnock.models.variants.classes import register as register
from monadnock.models.variants.parameters import VARIANTS as VARIANTS
from monadnock.models.variants.parameters import Variant as Variant

__all__ = ["VARIANTS", "Variant", "build", "register"]
