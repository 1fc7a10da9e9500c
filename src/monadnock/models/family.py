"""What monadnock has to know about a model family: module paths as data, and the registry that finds them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal

from monadnock.errors import MonadnockError, nearest


def names(text: str) -> frozenset[str]:
    """Return the set of the names in a text, for config attributes.

    Example:
        >>> sorted(names("bias alibi"))
        ['alibi', 'bias']
    """
    return frozenset(text.split())


# Config attributes that need nothing from a family: sizes that are read off the weights, token ids, training-time
# settings, and everything that the model's own code applies while monadnock only watches.
COMMON_ATTRIBUTES = names(
    """
    architectures attention_bias attention_dropout attn_pdrop bos_token_id chunk_size_feed_forward
    classifier_dropout dtype embd_pdrop eos_token_id head_dim hidden_act hidden_activation hidden_dropout
    hidden_dropout_prob hidden_size id2label initializer_range intermediate_size is_decoder is_encoder_decoder
    label2id layer_norm_eps layer_norm_epsilon layer_types max_position_embeddings max_window_layers mlp_bias
    model_type num_attention_heads num_hidden_layers num_key_value_heads output_attentions output_hidden_states
    pad_token_id partial_rotary_factor pretraining_tp problem_type quantization_config resid_pdrop return_dict
    rms_norm_eps rope_parameters rope_scaling rope_theta sep_token_id sliding_window tie_word_embeddings
    tokenizer_class transformers_version use_cache use_sliding_window vocab_size
    """
)

# names of the norms of a layer
NORMS = ("attn_input", "mlp_input", "attn_output", "mlp_output", "query", "key")


@dataclass(frozen=True)
class Family:
    """Where the parts of a decoder layer are, for one `config.model_type`.

    A weight is written `path` or `path#cut`: the module (or bare parameter) under the decoder layer, and how the
    part is cut from a fused matrix. Cuts: `rows` (q, k, v stacked one after the other), `heads` (the queries of a
    key-value head, its key and its value, then the next key-value head), `halves` (gate, then up), `pairs` (gate
    and up rows alternate). The field's own name says which part is meant.

    Attributes:
        norms: name (one of `NORMS`) to path under the layer; `a|b` takes the first that exists, a trailing `?` allows
            none. Names say where the norm stands: in front of attention or MLP, behind them, on queries or keys. A
            norm that feeds both attention and MLP is listed once, as `attn_input`.
        final_norm: path under the decoder; may be missing with a trailing `?`.
        norm_offset: added to a norm's weight to give its gain (1 for Gemma).
        transposed: parts stored `[in, out]`.
        rotary: how a rotary pair is laid out in a head.
        attention: `interface` if the attention module calls a registered function, `returned` if it computes
            probabilities itself and returns them as its second output.
        attention_module: path of the attention module under the layer.
        alibi_in_mask: name of an attention argument that the mask already contains, so that it is passed as zeros
            where transformers' own eager code would add it a second time; else None.
        mlp_module: path of the whole mixture-of-experts block under the layer; dense families do not need it.
        router, experts: paths of a mixture-of-experts layer, else None.
        positions: path of a learned position embedding under the decoder, else None.
        handles: config attributes beyond the common ones that change the maths and are taken care of; `a.b` is
            attribute b of the nested config a.
        variants: (config attribute, value, changed fields): what is different in checkpoints of this kind.
    """

    model_type: str
    q: str = "self_attn.q_proj"
    k: str = "self_attn.k_proj"
    v: str = "self_attn.v_proj"
    o: str = "self_attn.o_proj"
    gate: str | None = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    down: str = "mlp.down_proj"
    norms: Mapping[str, str] = field(
        default_factory=lambda: {"attn_input": "input_layernorm", "mlp_input": "post_attention_layernorm"}
    )
    final_norm: str = "norm"
    norm_offset: float = 0.0
    transposed: frozenset[str] = frozenset()
    rotary: Literal["half", "interleaved", "none"] = "half"
    attention: Literal["interface", "returned"] = "interface"
    attention_module: str = "self_attn"
    alibi_in_mask: str | None = None
    mlp_module: str = "mlp"
    router: str | None = None
    experts: str | None = None
    positions: str | None = None
    handles: frozenset[str] = frozenset()
    variants: tuple[tuple[str, Any, Mapping[str, Any]], ...] = ()

    def variant(self, config: Any) -> "Family":
        """Return the family as it is for this config, with the fields of every variant that applies."""
        changed: dict[str, Any] = {}
        for attribute, value, fields in self.variants:
            if getattr(config, attribute, None) == value:
                changed |= fields
        return replace(self, **changed)


@cache
def _registered() -> dict[str, str]:
    return {entry.name: entry.value for entry in entry_points(group="monadnock.families")}


def families() -> list[str]:
    """Return the model types of all registered families, sorted."""
    return sorted(_registered())


def family(model_type: str) -> Family:
    """Return the family of a model type.

    Raises:
        MonadnockError: if it is not registered, with the nearest known names.

    Example:
        >>> family("llama").down
        'mlp.down_proj'
    """
    if model_type not in _registered():
        raise MonadnockError(
            f"Model type {model_type!r} is not a known family of decoder-only language models: "
            f"{nearest(model_type, _registered())} (docs/families.md says how to add one)"
        )
    (entry,) = entry_points(group="monadnock.families", name=model_type)
    return entry.load()
