"""The adapter: one loaded model behind names that are the same for every family."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from monadnock.errors import MonadnockError
from monadnock.models.config_check import check_config, find_family
from monadnock.models.family import NORMS, Family
from monadnock.models.offload import present
from monadnock.models.weight import WeightView, cut
from monadnock.sites import Stream


@dataclass(frozen=True)
class Source:
    """Where a model came from: its id, the kind of place, and the revision."""

    id: str
    kind: str  # hub, folder, gguf, packaged or object
    revision: str | None = None


class Adapter:
    """A model, its tokenizer, and where its parts are.

    Attributes:
        model: the transformers causal language model, in evaluation mode.
        tokenizer: its tokenizer, or None.
        family: the data on its family, as it is for this model's config.
        source: where it came from.
        decoder: the module that holds the layers.
        layers: the decoder layers.
        ignored_config: config attributes that the model never reads.

    Raises:
        MonadnockError: on an unknown family, an unhandled config attribute, or parts that are not where they belong.

    Example:
        >>> adapter = Adapter(model, tokenizer, Source("mine", "object"))  # doctest: +SKIP
        >>> adapter.weight(11, "down").read().shape  # doctest: +SKIP
        torch.Size([576, 1536])
    """

    def __init__(self, model: Any, tokenizer: Any, source: Source):
        self.model, self.tokenizer, self.source = model, tokenizer, source
        self.config = model.config.get_text_config(decoder=True)
        self.family: Family = find_family(self.config)
        self.ignored_config = check_config(self.config, self.family)
        self.decoder: nn.Module = model.get_decoder()
        self.layers = self._find_layers()

    def _find_layers(self) -> nn.ModuleList:
        count = self.config.num_hidden_layers
        for module in self.decoder.modules():
            if isinstance(module, nn.ModuleList) and len(module) == count:
                return module
        kind = type(self.model).__name__
        raise MonadnockError(f"{self.source.id}: no list of {count} decoder layers was found in {kind}.")

    # sizes, read off the weights

    @property
    def num_layers(self) -> int:
        """Number of decoder layers."""
        return len(self.layers)

    @property
    def num_heads(self) -> int:
        """Number of query heads."""
        return self.config.num_attention_heads

    @cached_property
    def num_kv_heads(self) -> int:
        """Number of key-value heads."""
        return self._shape("k")[0] // self.d_head

    @cached_property
    def d_head(self) -> int:
        """Width of a head."""
        return self.stored(0, "o").shape[0 if "o" in self.family.transposed else 1] // self.num_heads

    @cached_property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return self._shape("down")[0]

    @cached_property
    def intermediate_size(self) -> int:
        """Width of the down projection's input."""
        return self._shape("down")[1]

    def _shape(self, role: str) -> torch.Size:
        """Shape of a weight of the first layer as [out, in], without reading it."""
        return self.cut(self.stored(0, role), role, 0 if self.num_experts else None).read().shape

    @cached_property
    def num_experts(self) -> int | None:
        """Number of experts of a layer; None in dense models."""
        return self.stored(0, "down").shape[0] if self.family.experts else None

    @property
    def context_length(self) -> int | None:
        """Longest input that the config allows; None if it names no limit."""
        return getattr(self.config, "max_position_embeddings", None) or getattr(self.config, "max_seq_len", None)

    @property
    def device(self) -> torch.device:
        """Device of the input embedding, where token ids go."""
        device = self.model.get_input_embeddings().weight.device
        return torch.device("cpu") if device.type == "meta" else device  # accelerate moves the ids on

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the input embedding."""
        return self.model.get_input_embeddings().weight.dtype

    # parts

    def module(self, layer: int, path: str) -> Any:
        """Return the module or parameter at `path` under a decoder layer."""
        part: Any = self.layers[layer]
        for name in path.split("."):
            while not hasattr(part, name) and hasattr(part, "base_layer"):  # peft, around what holds the experts
                part = part.base_layer
            if not hasattr(part, name):
                model_type, model = self.family.model_type, self.source.id
                raise MonadnockError(
                    f"Family {model_type}: layer {layer} of {model} has no {path} ({name} is missing)."
                )
            part = getattr(part, name)
        return part

    def _spec(self, role: str) -> tuple[str, str]:
        if not self.has(role):
            raise MonadnockError(f"Family {self.family.model_type} has no {role} projection.")
        path, _, how = getattr(self.family, role).partition("#")
        return path, how

    def has(self, role: str) -> bool:
        """Whether the family has this part (GPT-2 has no gate)."""
        return getattr(self.family, role) is not None

    def stored(self, layer: int, role: str) -> Tensor:
        """Return the parameter that holds a weight, as the family stores it: fused, transposed or stacked."""
        part = self.module(layer, self._spec(role)[0])
        return part if isinstance(part, Tensor) else part.weight

    def weight(self, layer: int, role: str, expert: int | None = None) -> WeightView:
        """Return a weight as [out, in], shared with the model.

        Args:
            layer: 0-based decoder layer.
            role: q, k, v, o, gate, up or down.
            expert: which expert, for gate, up and down of a mixture-of-experts layer.
        """
        path = self._spec(role)[0]
        return self.cut(self._values(layer, path, "weight"), role, expert)

    def _values(self, layer: int, path: str, name: str) -> Any:
        """Return the values of a module's parameter, or of the parameter at `path` itself, wherever they are kept."""
        if isinstance(self.module(layer, path), Tensor):
            owner, _, leaf = path.rpartition(".")
            return present(self.module(layer, owner), leaf + ("" if name == "weight" else name))
        return present(self.module(layer, path), name)

    def bias(self, layer: int, role: str, expert: int | None = None) -> WeightView | None:
        """Return the bias [out] that belongs to a weight, shared with the model, or None."""
        path = self._spec(role)[0]
        bare = isinstance(self.module(layer, path), Tensor)
        stored = self._values(layer, path, "_bias" if bare else "bias")
        return None if stored is None else self.cut(stored, role, expert)

    def cut(self, stored: Tensor, role: str, expert: int | None) -> WeightView:
        """Return the part [out, in] of a parameter that a role has, or of a tensor of its shape."""
        if self.family.experts and role in ("gate", "up", "down"):
            if expert is None:
                raise ValueError(f"{role} of a mixture-of-experts layer needs an expert")
            stored = stored[expert]
        how = self._spec(role)[1]
        heads = (self.num_heads, self.d_head) if how in ("rows", "heads") else (0, 0)
        return cut(
            stored.detach(), role, how, num_heads=heads[0], d_head=heads[1], transposed=role in self.family.transposed
        )

    def matrices(self, layer: int) -> Iterator[tuple[str, int | None, WeightView]]:
        """Yield (role, expert, weight) for every weight matrix of a layer."""
        for role in ("q", "k", "v", "o", "gate", "up", "down"):
            if not self.has(role):
                continue
            experts = range(self.num_experts) if self.num_experts and role in ("gate", "up", "down") else [None]
            for expert in experts:
                yield role, expert, self.weight(layer, role, expert)
        if self.family.router:
            yield "router", None, WeightView(self._values(layer, self.family.router, "weight").detach())

    def norm(self, layer: int | None, name: str) -> nn.Module | None:
        """Return a norm module of a layer, or the final norm (`layer=None`, `name="final"`); None if there is none."""
        if name not in (NORMS if layer is not None else ("final",)):
            raise ValueError(f"unknown norm {name!r}")
        if layer is not None and name not in self.family.norms:
            return None
        root: nn.Module = self.decoder if layer is None else self.layers[layer]
        spec = self.family.final_norm if layer is None else self.family.norms[name]
        for path in spec.rstrip("?").split("|"):
            try:
                module = root.get_submodule(path)
            except AttributeError:
                continue
            return module
        if spec.endswith("?"):
            return None
        model_type, model = self.family.model_type, self.source.id
        raise MonadnockError(f"Family {model_type}: {model} has no norm at {spec} (layer {layer}).")

    def gains(self, layer: int | None, name: str) -> Tensor | None:
        """Return the effective gains [width] of a norm, or None if the norm is missing or has none."""
        module = self.norm(layer, name)
        weight = None if module is None else present(module, "weight")
        return None if weight is None else weight.detach().float().flatten() + self.family.norm_offset

    def norms(self) -> Iterator[tuple[int | None, str, Tensor]]:
        """Yield (layer, name, gains) for every norm of the layers and the final one."""
        places = [(layer, name) for layer in range(self.num_layers) for name in self.family.norms]
        for layer, name in [*places, (None, "final")]:
            gains = self.gains(layer, name)
            if gains is not None:
                yield layer, name, gains

    # running

    def streams(self) -> frozenset[Stream]:
        """Streams that can be observed in this model."""
        missing = set() if self.family.router else {Stream.ROUTER_LOGITS}
        return frozenset(set(Stream) - missing)

    def forward(self, ids: Tensor, keep: int | Tensor = 1) -> Tensor:
        """Run the model on token ids and return the logits [kept, vocab] of the first window.

        Args:
            ids: token ids of one window, [seq], or of several, [window, seq].
            keep: how many of the last positions, or which positions, get logits.
        """
        with torch.inference_mode():
            keep = keep.to(self.device) if isinstance(keep, Tensor) else keep
            ids = ids.to(self.device)
            ids = ids if ids.dim() > 1 else ids[None]
            output = self.model(input_ids=ids, use_cache=False, return_dict=True, logits_to_keep=keep)
        return output.logits[0]


def bare(module: Any) -> Any:
    """Return the module inside what peft puts around it for its adapters."""
    while hasattr(module, "base_layer"):
        module = module.base_layer
    return module
