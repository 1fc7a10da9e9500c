"""Models with an adapter (LoRA, DoRA) that peft saved, merged into their weights."""

import copy
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from monadnock.errors import MonadnockError, first_line
from monadnock.models.adapter import Adapter, Source
from monadnock.models.quiet import quiet

_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def check_installed() -> None:
    """Raise a `MonadnockError` unless peft is installed."""
    if importlib.util.find_spec("peft") is None:
        raise MonadnockError("Adapters need an extra: pip install -e '.[train]' in the clone.")


def peft() -> Any:
    """Return the library, or raise a `MonadnockError` where it is not installed."""
    check_installed()
    import peft

    return peft


def with_adapter(adapter: Adapter, folder: Path) -> Adapter:
    """Return a copy of a model with a saved adapter merged into its weights.

    Raises:
        MonadnockError: if peft is not installed, or the adapter cannot be read or is one of another model.
    """
    return _merged(adapter, copy.deepcopy(adapter.model), folder)


def merge(adapter: Adapter, folder: Path) -> Adapter:
    """Return a model with a saved adapter merged into its weights, which the model that was given loses.

    Raises:
        MonadnockError: as `with_adapter`.
    """
    check_installed()
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if weights is None or not (folder / "adapter_config.json").is_file():
        raise MonadnockError(f"{folder} is no adapter: it holds no adapter_config.json and {_WEIGHTS[0]}.")
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update((folder / "adapter_config.json").read_bytes())  # alpha is there
    source = adapter.source
    revision = f"{source.revision or ''}+sha256:{digest.hexdigest()}"
    merged = _merged(adapter, adapter.model, folder)
    return Adapter(merged.model, merged.tokenizer, Source(f"{source.id}+{folder}", source.kind, revision))


def _merged(adapter: Adapter, model: Any, folder: Path) -> Adapter:
    library = peft()
    try:
        with quiet():
            tuned: Any = library.PeftModel.from_pretrained(model, str(folder))
            left = library.get_peft_model_state_dict(tuned).keys() ^ library.load_peft_weights(str(folder)).keys()
            if left:  # peft only warns of them
                raise ValueError(f"{len(left)} of its weights are not the model's, the first is {min(left)}")
            tuned = tuned.merge_and_unload()
    except Exception as error:  # peft, safetensors, json and pickle all have exceptions of their own
        raise MonadnockError(f"{folder} is no adapter of {adapter.source.id}: {first_line(error)}.") from error
    return Adapter(tuned.eval(), adapter.tokenizer, adapter.source)
