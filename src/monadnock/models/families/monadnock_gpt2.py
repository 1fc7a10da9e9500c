"""GPT-2 with an attention variant, as `monadnock pretrain` makes it."""

from dataclasses import replace

from monadnock.models.families.gpt2 import FAMILY as GPT2
from monadnock.models.family import names

FAMILY = replace(GPT2, model_type="monadnock_gpt2", handles=GPT2.handles | names("attention_variant"))
