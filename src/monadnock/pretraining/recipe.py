"""What a file says of a pretraining: the model, the data, and how it is trained; the variant and the seed are apart."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from monadnock.errors import MonadnockError, nearest

_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_KINDS = {  # what pydantic calls a value of the wrong kind, but for the last word
    "int": "a whole number",
    "int_from": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "a text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a list of names with values",
    "model": "a list of names with values",
    "too": "a list of two",
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TaskData(_Part):
    """The bigram-backcopy task, made on the fly, see `Backcopy`."""

    task: Literal["backcopy"]
    length: int = Field(63, ge=3, description="tokens behind BOS")
    tokens: int = Field(64, ge=2)
    triggers: int = Field(4, ge=1)
    spread: float = Field(2.0, gt=0)
    pairs: bool = Field(False, description="two triggers may begin a sequence, and take turns to its end")


class TextData(_Part):
    """Text, from files or a data set, as windows of tokens; a tokenizer is trained on it unless one is named."""

    text: list[str] = Field(default_factory=list, description="files")
    dataset: str | None = Field(None, description="owner/name:config:split")
    characters: int = Field(10**9, ge=1, description="of a data set that are read")
    tokenizer: str | None = Field(None, description="a model whose tokenizer is taken")
    vocabulary: int = Field(4096, ge=300, description="of the tokenizer that is trained where none is named")
    length: int = Field(256, ge=8, description="tokens of a window")
    bos: bool = Field(False, description="BOS in front of every window; the prediction at BOS does not count")
    validation: float = Field(0.05, gt=0, lt=1, description="share held back, the end")


class Recipe(_Part):
    """A pretraining, read from YAML with `read_recipe`.

    Attributes:
        about: what it is for, in a sentence.
        architecture: gpt2 (learned positions, LayerNorm, GELU) or llama (RoPE, RMSNorm, SwiGLU).
        model: settings of transformers' GPT2Config or LlamaConfig; vocabulary and context come from the data.
        silent: layers whose attention gives nothing: its output projection stays zero.
        data: the task or the text.
        steps: of the optimizer (AdamW).
        batch: sequences of a micro-batch, on each device.
        accumulation: micro-batches of a step.
        rate: peak learning rate; it falls as a cosine to `floor` of that.
        warmup: steps over which it rises; a training of fewer does not reach the peak.
        weight_decay: of all but norms and biases; a variant's k', v', logit and linear map are decayed, too.
        clip: largest norm of the gradient.
        dtype: auto (bfloat16 autocast on a GPU that can, else float32), float32 or bfloat16.
        compile: let torch.compile make the steps faster.
        watch: steps between two looks at the outliers; the first and the last step are looked at in any case.
        windows: sequences looked at, of those held back.
        held: sequences on which the loss is measured.
    """

    about: str = ""
    architecture: Literal["gpt2", "llama"]
    model: dict[str, Any] = Field(default_factory=dict)
    silent: list[int] = Field(default_factory=list)
    data: TaskData | TextData
    steps: int = Field(ge=1)
    batch: int = Field(16, ge=1)
    accumulation: int = Field(1, ge=1)
    rate: float = Field(1e-3, gt=0)
    warmup: int = Field(0, ge=0)
    floor: float = Field(0.1, ge=0, le=1)
    weight_decay: float = Field(0.1, ge=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    clip: float = Field(1.0, gt=0)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    watch: int = Field(100, ge=1)
    windows: int = Field(4, ge=1)
    held: int = Field(64, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _which_data(cls, given: Any) -> Any:
        """Read data as what it is, so that errors name its own keys."""
        if isinstance(given, dict) and isinstance(given.get("data"), dict):
            kind = TaskData if "task" in given["data"] else TextData
            return given | {"data": kind.model_validate(given["data"])}
        return given


def read_recipe(path: str | Path, **changes: Any) -> Recipe:
    """Read a recipe.

    Args:
        path: a YAML file.
        changes: settings in place of the recipe's; None changes nothing.

    Raises:
        MonadnockError: if it cannot be read, or has a key that does not exist or a value that makes no sense.

    Example:
        >>> read_recipe("recipes/pretrain_cpu_sinks.yaml").steps  # doctest: +SKIP
        1500
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "it is not YAML"
        raise MonadnockError(f"Recipe {path} cannot be read ({reason}); give a YAML file.") from error
    if not isinstance(content, dict):
        raise MonadnockError(f"Recipe {path} is no list of names with values; see docs/variants.md.")
    if "verb" in content:
        raise MonadnockError(f"{path} is a recipe of a sweep: monadnock sweep {path}.")
    data = content.get("data")
    if changes.get("data") and isinstance(data, dict):  # another text, read in the same way
        others = {name: value for name, value in data.items() if name not in ("text", "dataset", "characters")}
        changes["data"] = (_like_task(data) if "task" in data else others) | changes["data"]
    try:
        return Recipe.model_validate(content | {name: value for name, value in changes.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        kinds = ("TaskData", "TextData", "[key]")
        where = ".".join(str(each) for each in first["loc"] if each not in kinds)
        if first["type"] == "extra_forbidden":
            data = content.get("data")
            kind = TaskData if isinstance(data, dict) and "task" in data else TextData
            known = kind.model_fields if first["loc"][-1] in (data or ()) else Recipe.model_fields
            raise MonadnockError(f"Recipe {path} sets {where}, which there is not: {nearest(where, known)}") from error
        if first["loc"] and first["loc"][0] not in Recipe.model_fields:
            where = f"data.{where}"
        raise MonadnockError(f"Recipe {path}: {where or 'the whole'} {_wrong(first)}.") from error


def _wrong(found: Any) -> str:
    """Say in words what pydantic found wrong with a value."""
    kind, limits = found["type"], found.get("ctx", {})
    bound = next((f"{_BOUNDS[name]} {value:g}" for name, value in limits.items() if name in _BOUNDS), None)
    if kind == "missing":
        return "is missing"
    needed = bound or (f"{limits['expected']}" if kind == "literal_error" else _KINDS.get(kind.rpartition("_")[0]))
    if "[key]" in found["loc"]:
        needed = "a name, a text"
    return f"has to be {needed or 'something else'}, not {found['input']!r:.60}"


def _like_task(data: dict[str, Any]) -> dict[str, Any]:
    """Return how a text is read in place of a task: in windows as long as its sequences, BOS in front."""
    length = data.get("length", TaskData.model_fields["length"].default)
    least = 8  # of `TextData`
    return {"length": max(least, length + 1) if isinstance(length, int) else length, "bos": True}
