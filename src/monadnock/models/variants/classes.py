"""Models of the Llama and GPT-2 kind with an attention variant, as classes that transformers saves and loads."""

from typing import Any

from transformers import (
    AttentionInterface,
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from transformers.models.llama.modeling_llama import LlamaAttention

from monadnock.errors import MonadnockError, nearest
from monadnock.models.variants.formulas import NAME, eager_attention_forward, fused_attention_forward
from monadnock.models.variants.parameters import VARIANTS, Variant

__all__ = ["build", "eager_attention_forward", "register"]  # the second is found by the attention modules' classes
ARCHITECTURES = ("gpt2", "llama")
_OWN = (NAME, "monadnock")  # attention functions that compute the variant: as it is trained, as it is observed


class _Varied:
    """An attention module with a variant: its output is scaled by what the variant makes of the states it reads."""

    variant: Variant

    def forward(self, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        if self.variant.name != "default":  # which any function computes
            _check_attention(self.config._attn_implementation, ())  # pyrefly: ignore
        scale = self.variant.scale(hidden_states)
        return super().forward(hidden_states, *args, **kwargs, output_scale=scale)  # pyrefly: ignore


class VariedLlamaAttention(_Varied, LlamaAttention):
    """Llama's attention with a variant."""


class VariedGPT2Attention(_Varied, GPT2Attention):
    """GPT-2's attention with a variant."""


class VariedLlamaConfig(LlamaConfig):
    """Llama's config with `attention_variant`."""

    model_type = "monadnock_llama"
    attention_variant: str = "default"


class VariedGPT2Config(GPT2Config):
    """GPT-2's config with `attention_variant`."""

    model_type = "monadnock_gpt2"
    attention_variant: str = "default"


class _Model:
    """A model whose attention modules have a variant; it runs under the variant's attention function alone."""

    def __init__(self, config: Any):
        _check(config)  # before weights are made
        _check_attention(config._attn_implementation)
        super().__init__(config)  # pyrefly: ignore
        for module in self.modules():  # pyrefly: ignore
            if isinstance(module, (LlamaAttention, GPT2Attention)):
                _vary(module, config)
        self.loss_type = "ForCausalLM"  # transformers looks for it in the class's name
        register()
        self.set_attn_implementation(NAME)

    def _init_weights(self, module: Any) -> None:
        """Give a variant that a checkpoint does not have its first values."""
        if isinstance(module, Variant):
            module.begin()
        else:
            super()._init_weights(module)  # pyrefly: ignore

    def set_attn_implementation(self, attn_implementation: Any, *args: Any, **kwargs: Any) -> None:
        """Take no other attention function, which would leave the variant out, than the observed one."""
        _check_attention(attn_implementation)
        own = "monadnock" if attn_implementation == "monadnock" else NAME
        super().set_attn_implementation(own, *args, **kwargs)  # pyrefly: ignore


class VariedLlama(_Model, LlamaForCausalLM):
    """Llama with an attention variant."""

    config_class = VariedLlamaConfig


class VariedGPT2(_Model, GPT2LMHeadModel):
    """GPT-2 with an attention variant."""

    config_class = VariedGPT2Config


_CLASSES = {"llama": (VariedLlamaConfig, VariedLlama), "gpt2": (VariedGPT2Config, VariedGPT2)}


def _check(config: Any) -> None:
    """Refuse a variant that there is not, and dropout that has no meaning with one."""
    name = config.attention_variant
    if name not in VARIANTS:
        raise MonadnockError(f"There is no attention variant {name!r}: {nearest(name, VARIANTS)}")
    if name == "context_bias" and max(getattr(config, each, 0) for each in ("attn_pdrop", "attention_dropout")):
        raise MonadnockError("context_bias is not defined with dropout of attention; set that to 0.")


def _check_attention(asked: Any, others: tuple[Any, ...] = (None, "sdpa")) -> None:
    """Refuse attention functions that would leave the variant out; under its own one, PyTorch's sdpa does the work."""
    if asked not in (*others, *_OWN):
        raise MonadnockError(
            f"A model with an attention variant runs under {NAME!r} (sdpa where the formula allows), not {asked!r}; "
            "leave attn_implementation out."
        )


def _vary(module: Any, config: Any) -> None:
    """Turn a plain attention module into one with a variant; its own weights stay as they are."""
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    module.variant = Variant(
        config.attention_variant, config.hidden_size, heads, groups, module.head_dim, config.initializer_range
    )
    module.__class__ = VariedLlamaAttention if isinstance(module, LlamaAttention) else VariedGPT2Attention


def register() -> None:
    """Make the attention function, the configs and the models known to transformers; again does nothing."""
    AttentionInterface.register(NAME, fused_attention_forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    for config, model in _CLASSES.values():
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModelForCausalLM.register(config, model, exist_ok=True)


def build(architecture: str, variant: str, **settings: Any) -> Any:
    """Return a random model with an attention variant.

    With the same seed of torch, all variants begin with the same weights where they have the same.

    Args:
        architecture: gpt2 (learned positions, LayerNorm, GELU) or llama (RoPE, RMSNorm, SwiGLU).
        variant: one of `VARIANTS`.
        **settings: of `GPT2Config` or `LlamaConfig`.

    Raises:
        MonadnockError: on an unknown architecture or variant.

    Example:
        >>> model = build("llama", "sigmoid", num_hidden_layers=2, hidden_size=16, num_attention_heads=2, vocab_size=50)
        >>> model.config.model_type
        'monadnock_llama'
    """
    if architecture not in ARCHITECTURES:
        raise MonadnockError(f"There is no architecture {architecture!r}: {nearest(architecture, ARCHITECTURES)}")
    config, model = _CLASSES[architecture]
    return model(config(attention_variant=variant, **settings))
