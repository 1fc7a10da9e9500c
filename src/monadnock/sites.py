"""Names for the places in a model where something can be observed."""

from dataclasses import dataclass
from enum import StrEnum


class Stream(StrEnum):
    """A kind of state that flows through every decoder layer; widths are given in the comments."""

    RESIDUAL = "residual"  # h_l: output of the decoder layer; at layer -1 what enters the first, d_model
    ATTN_INPUT = "attn_input"  # input of the query projection, d_model
    QUERY = "query"  # output of the query projection, before rotary and QK-norm, head * d_head
    KEY = "key"  # the same for keys, kv_head * d_head
    VALUE = "value"  # the same for values, kv_head * d_head
    O_PROJ_INPUT = "o_proj_input"  # input of the output projection: what the heads give, head * d_head
    ATTN_OUTPUT = "attn_output"  # output of the output projection, before any norm, d_model
    ATTN_UPDATE = "attn_update"  # what attention adds to the residual: behind its norm where there is one, d_model
    MLP_INPUT = "mlp_input"  # input of the up projection (of the whole block for experts), d_model
    DOWN_PROJ_INPUT = "down_proj_input"  # x_down: the intermediate state, d_mlp
    MLP_OUTPUT = "mlp_output"  # output of the down projection (of the whole block for experts), d_model
    MLP_UPDATE = "mlp_update"  # what the block adds to the residual: behind its norm where there is one, d_model
    ROUTER_LOGITS = "router_logits"  # one logit per expert, only in mixture-of-experts layers
    ATTN_PROBS = "attn_probs"  # attention probabilities, seen in blocks of queries: head x query x key
    HEADS = "heads"  # the same blocks, then queries, keys and values as attention used them: head x position x d_head


@dataclass(frozen=True, order=True)
class Site:
    """A stream at one decoder layer (0-based).

    Example:
        >>> str(Site(Stream.RESIDUAL, 11))
        'residual.11'
    """

    stream: Stream
    layer: int

    def __str__(self) -> str:
        return f"{self.stream}.{self.layer}"
