"""The manifest of a run: everything that its numbers depend on, validated on the way in and out."""

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 3  # 2: attacks; 3: explanations and studies


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelFacts(_Part):
    """Which model was scanned, and its shape."""

    id: str
    revision: str | None = None
    source: str = Field(description="hub, folder, gguf, packaged or object")
    family: str
    dtype: str
    device: str
    num_layers: int
    num_heads: int
    num_kv_heads: int
    hidden_size: int
    intermediate_size: int
    num_experts: int | None = None
    vocab_size: int
    num_parameters: int
    context_length: int | None = None
    ignored_config: list[str] = Field(default_factory=list, description="config attributes that the model never reads")


class TextFacts(_Part):
    """Which tokens were scanned."""

    source: str
    num_windows: int
    length: int
    bos: bool
    start_token_id: int
    start_token: str
    token_hash: str = Field(description="sha256 of the window ids as little-endian int64")
    seed: int


class SelfCheck(_Part):
    """Largest |logit difference| with and without observation, relative to the largest |logit|; its bound."""

    relative_error: float
    tolerance: float
    num_logit_positions: int


class AttackFacts(_Part):
    """What a series of attacks depends on, beyond the model."""

    created: datetime = Field(default_factory=lambda: datetime.now(UTC))
    monadnock: str
    text: TextFacts
    stride: int = Field(description="scored tokens of every window but the first")
    attention: str
    device: str
    metrics: list[str]
    weight_sums: list[float] = Field(
        default_factory=list, description="sum w and sum |w| of every layer and of the rest: which weights these were"
    )
    thresholds: dict[str, float]
    versions: dict[str, str]


class Manifest(_Part):
    """Provenance of a run.

    Example:
        >>> Manifest.model_validate_json(run_json).model.family  # doctest: +SKIP
        'llama'
    """

    schema_version: int = SCHEMA_VERSION
    created: datetime = Field(default_factory=lambda: datetime.now(UTC))
    monadnock: str
    model: ModelFacts
    text: TextFacts
    probes: list[str]
    attention: str = Field(description="how attention was computed and observed")
    thresholds: dict[str, float] = Field(description="every threshold, named source.name")
    versions: dict[str, str]
    self_check: SelfCheck | None = Field(description="null where no probe needed a pass over the text")
    seconds: float
    tables: dict[str, int] = Field(default_factory=dict, description="rows of each table that the scan wrote")
    attacks: list[AttackFacts] = Field(default_factory=list, description="one for each text and setting")

    def has(self, attack: AttackFacts) -> bool:
        """Say whether a series of attacks is noted, whenever it was and however its weights were summed up."""
        told = {"created": attack.created, "weight_sums": attack.weight_sums}
        return attack in [each.model_copy(update=told) for each in self.attacks]
