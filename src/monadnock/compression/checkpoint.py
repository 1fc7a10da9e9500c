"""Save a compressed model: as a plain checkpoint, and packed to the bits that its weights take."""

import contextlib
import copy
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from safetensors.torch import load_file
from safetensors.torch import save_file as save_torch

from monadnock.compression.packing import Arrays, unpack_matrix
from monadnock.errors import MonadnockError
from monadnock.models import Adapter, Source
from monadnock.models.components import parameters
from monadnock.models.matrices import Matrix
from monadnock.models.quiet import quiet

PACKED, REST = "matrices.safetensors", "rest.safetensors"


def save_checkpoint(adapter: Adapter, folder: Path) -> Path:
    """Write the model as it is now, with its tokenizer, as a folder that transformers and `load` read.

    The folder appears whole or not at all; one of this name that is there already is replaced.

    Raises:
        MonadnockError: if it cannot be written.
    """
    with _appearing(folder) as draft, quiet():
        moved = {id(adapter.model.get_parameter(name)): values for _, name, values in parameters(adapter)}
        state = {name: moved.get(id(each), each) for name, each in adapter.model.state_dict(keep_vars=True).items()}
        adapter.model.save_pretrained(draft, state_dict=state)
        _save_config(adapter, draft)
    return folder


def save_packed(adapter: Adapter, matrices: Mapping[Matrix, tuple[Arrays, dict[str, Any]]], folder: Path) -> None:
    """Write the packed matrices and all other parameters of the model.

    Args:
        adapter: the model; its other parameters are saved as they are.
        matrices: arrays and facts of each packed matrix, from `pack_matrix`.
        folder: where; appears whole or not at all.

    Raises:
        MonadnockError: if it cannot be written.
    """
    arrays = {f"{_key(matrix)}.{name}": each for matrix, (own, _) in matrices.items() for name, each in own.items()}
    facts = {_key(matrix): told for matrix, (_, told) in matrices.items()}
    packed = {id(adapter.stored(matrix.layer, matrix.module)): 0 for matrix in matrices}
    for matrix, (_, told) in matrices.items():
        packed[id(adapter.stored(matrix.layer, matrix.module))] += told["shape"][0] * told["shape"][1]
    rest = {
        name: values.cpu().contiguous()
        for _, name, values in parameters(adapter)
        if packed.get(id(adapter.model.get_parameter(name))) != values.numel()
    }
    with _appearing(folder) as draft:
        save_file(arrays, draft / PACKED, {"matrices": json.dumps(facts)})
        save_torch(rest, draft / REST)
        _save_config(adapter, draft)


def load_packed(folder: str | Path) -> Adapter:
    """Load a model that `save_packed` wrote; its weights are bit for bit those of the compressed model in float32.

    Raises:
        MonadnockError: if the folder is damaged, or no packed model.

    Example:
        >>> adapter = load_packed("runs/spqr/packed/spqr-3-bits-group-16-threshold-0.2")  # doctest: +SKIP
    """
    import transformers

    folder = Path(folder)
    if not (folder / PACKED).is_file():
        raise MonadnockError(f"{folder} is not a packed model: it holds no {PACKED}.")
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=config.dtype or torch.float32)
        lost = model.load_state_dict(load_file(folder / REST), strict=False)
        adapter = Adapter(model.eval(), tokenizer, Source(str(folder), "folder"))
        with safe_open(folder / PACKED, framework="np") as file, torch.no_grad():
            facts = json.loads((file.metadata() or {})["matrices"])
            names = list(file.keys())
            for key, told in facts.items():
                own = {name.rpartition(".")[2]: file.get_tensor(name) for name in names if name.startswith(f"{key}.")}
                view = _matrix(key).weight(adapter)
                view.strided.copy_(unpack_matrix(own, told).view(view.strided.shape))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise MonadnockError(
            f"{folder} is damaged ({str(error).splitlines()[0]}); compress the model again."
        ) from error
    there = {id(adapter.stored(matrix.layer, matrix.module)) for matrix in map(_matrix, facts)}
    asked = dict(model.named_parameters(remove_duplicate=False))
    there |= {id(each) for name, each in asked.items() if name not in lost.missing_keys}  # tied ones share theirs
    if lost.unexpected_keys or any(id(asked[name]) not in there for name in lost.missing_keys if name in asked):
        raise MonadnockError(f"{folder} is damaged: its parameters are not those that its config asks for.")
    return adapter


def _key(matrix: Matrix) -> str:
    return f"{matrix.layer}|{matrix.module}|{'' if matrix.expert is None else matrix.expert}"


def _matrix(key: str) -> Matrix:
    layer, module, expert = key.split("|")
    return Matrix(int(layer), module, int(expert) if expert else None)


def _save_config(adapter: Adapter, folder: Path) -> None:
    """Save config and tokenizer; that the weights came from a quantised file is no longer true of these."""
    config = copy.deepcopy(adapter.model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = adapter.dtype
    config.save_pretrained(folder)
    if adapter.tokenizer is not None:
        adapter.tokenizer.save_pretrained(folder)


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Give a draft of a folder, and let it take the folder's name and place at the end."""
    draft = folder.parent / f".{folder.name[:64]}.{uuid.uuid4().hex[:8]}"
    old = folder.parent / f".{folder.name[:64]}.old.{uuid.uuid4().hex[:8]}"
    try:
        draft.mkdir(parents=True)
        yield draft
        if folder.exists():
            folder.rename(old)
        draft.rename(folder)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise MonadnockError(f"The checkpoint could not be written to {folder}: {error}.") from error
    finally:
        if old.exists() and not folder.exists():  # after Ctrl-C, too
            with contextlib.suppress(OSError):
                old.rename(folder)
        for each in (draft, old):
            shutil.rmtree(each, ignore_errors=True)
