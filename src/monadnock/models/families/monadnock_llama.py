"""Llama with an attention variant, as `monadnock pretrain` makes it."""

from dataclasses import replace

from monadnock.models.families.llama import FAMILY as LLAMA
from monadnock.models.family import names

FAMILY = replace(LLAMA, model_type="monadnock_llama", handles=LLAMA.handles | names("attention_variant"))
