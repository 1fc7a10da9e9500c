"""Load a model from wherever it is: the hub, a folder, a GGUF file, a packaged model."""

import contextlib
import hashlib
import pickle
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import torch

from monadnock.errors import MonadnockError, first_line, nearest
from monadnock.models import variants
from monadnock.models.adapter import Adapter, Source
from monadnock.models.checkpoint_files import Stored, look_at
from monadnock.models.config_check import find_family
from monadnock.models.gguf_file import read_once
from monadnock.models.offload import memory, read_as
from monadnock.models.packaged import PACKAGED, packaged_path
from monadnock.models.quiet import quiet
from monadnock.models.tuned import merge

DTYPES = ("auto", "float32", "bfloat16", "float16")
DISK = "disk"  # a device that is none: weights stay in their files, and are read when they are needed


def load(
    model: str | Path,
    *,
    dtype: str = "auto",
    device: str | None = None,
    device_map: str | dict | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Adapter:
    """Load a model and its tokenizer.

    Args:
        model: a packaged model's name, a GGUF file, a folder with config.json, or a hub id (`owner/name@revision`).
            With `+FOLDER` behind it, the adapter that peft saved there is merged into the weights.
        dtype: float32, bfloat16, float16 or auto (float32 on a CPU, else what the checkpoint holds).
        device: where to put it, as torch names it; by default cuda if there is one, else cpu. `disk` leaves the weights
            in the checkpoint's safetensors, from which accelerate reads them when they are needed.
        device_map: passed to transformers and accelerate instead of `device`.
        revision: branch, tag or commit on the hub.
        trust_remote_code: run code that comes with the checkpoint; off unless asked.

    Returns:
        An `Adapter`.

    Raises:
        MonadnockError: with one sentence on what was found and what to do.

    Example:
        >>> load("smollm2").num_layers  # doctest: +SKIP
        30
    """
    if tuned := _with_adapter(str(model)):
        base, folder = tuned
        if device == DISK:
            raise MonadnockError(
                f"{model} has an adapter, which is merged into weights in memory; they cannot stay on disk."
            )
        how: dict[str, Any] = {"dtype": dtype, "device": device, "device_map": device_map, "revision": revision}
        return merge(load(base, **how, trust_remote_code=trust_remote_code), folder)
    source, place, options = _locate(str(model), revision)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    moved = {"": DISK} if device == DISK else device_map
    _check_request(dtype, "cpu" if device == DISK else device)
    if device == DISK and "gguf_file" in options:
        raise MonadnockError(f"{source.id} is a GGUF file, which is read whole; safetensors alone can stay on disk.")
    options |= {"trust_remote_code": trust_remote_code}
    on_cpu = device_map is None and (device.startswith("cpu") or device == DISK)
    kind = getattr(torch, dtype) if dtype != "auto" else (torch.float32 if on_cpu else "auto")
    reading = read_once() if "gguf_file" in options else contextlib.nullcontext()
    with reading, _told_in_one_sentence(source), quiet():
        import transformers

        variants.register()
        if "gguf_file" in options:
            _check_gguf(Path(place) / options["gguf_file"])
        config = transformers.AutoConfig.from_pretrained(place, **options)
        find_family(config.get_text_config(decoder=True))  # refuses what cannot be scanned, before any weight is read
        with _told_in_one_sentence(source, "its tokenizer "):
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, config=config, **options)
        extra: dict[str, Any] = {}
        stored = None
        if source.kind in ("gguf", "packaged"):
            extra["quantization_config"] = transformers.GgufConfig(dequantize=True)
        elif source.kind == "folder":
            stored = look_at(Path(place))
            extra["use_safetensors"] = stored is not None
            if on_cpu and device != DISK:
                _check_fits(source, stored, kind)
            if device == DISK and not stored:
                raise MonadnockError(f"{source.id} holds a pickle, which is read whole; convert it to safetensors.")
        elif device == DISK:
            extra["use_safetensors"] = True
        extra |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # told by _check_complete instead
        with contextlib.ExitStack() as aside, _told_in_one_sentence(source, "its weights "):
            if moved is not None:  # what is not on disk as the model has it (fused experts) is written to a folder
                folder = aside.enter_context(
                    tempfile.TemporaryDirectory(prefix="monadnock-", ignore_cleanup_errors=True)
                )
                extra |= {"device_map": moved, "offload_folder": folder}
            loaded, info = transformers.AutoModelForCausalLM.from_pretrained(
                place,
                config=config,
                dtype=_unrounded(stored, kind, config) if device == DISK else kind,
                **extra,
                **options,
            )
            _check_complete(source, info, config)
            if device == DISK and kind != "auto":
                read_as(loaded, kind, extra["offload_folder"])
            weakref.finalize(loaded, aside.pop_all().close)
        if moved is None:
            loaded = loaded.to(device)
    commit = getattr(config, "_commit_hash", None)
    if "gguf_file" in options:
        with (Path(place) / options["gguf_file"]).open("rb") as file:
            commit = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    return Adapter(loaded.eval(), tokenizer, Source(source.id, source.kind, commit or source.revision))


def _with_adapter(model: str) -> tuple[str, Path] | None:
    """Return the model and the folder of `MODEL+FOLDER`; None for what is no such name."""
    places = [place for place, char in enumerate(model) if char == "+" and place]
    with contextlib.suppress(OSError):
        if places and not Path(model).exists():
            folders = ((model[:place], Path(model[place + 1 :])) for place in reversed(places))
            return next(((base, folder) for base, folder in folders if folder.is_dir()), None)
    return None


def _locate(model: str, revision: str | None) -> tuple[Source, str, dict[str, Any]]:
    """Say what kind of place a model name means, and how transformers finds it."""
    path = Path(model).expanduser()
    try:
        path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise MonadnockError(f"{model[:80]} cannot be looked up: {error.strerror}") from error
    if model in PACKAGED and not path.exists():
        file = packaged_path(model)
        return Source(model, "packaged"), str(file.parent), {"gguf_file": file.name}
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise MonadnockError(f"{path} is a file but not a GGUF file; give a model folder or a .gguf file.")
        return Source(str(path), "gguf"), str(path.parent), {"gguf_file": path.name}
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise MonadnockError(f"{path} is not a model folder: it holds no config.json.")
        return Source(str(path), "folder"), str(path), {}
    name, _, tag = model.partition("@")
    looks_local = path.is_absolute() or model.startswith((".", "~")) or model.endswith(".gguf") or name.count("/") > 1
    if looks_local:
        behind = " The folder of an adapter behind + has to exist." if "+" in model else ""
        raise MonadnockError(f"{model} does not exist; give a model folder, a .gguf file or a hub id.{behind}")
    if "/" not in name:
        raise MonadnockError(
            f"{model!r} is neither a folder, a .gguf file, a hub id (owner/name) nor a packaged model: "
            f"{nearest(model, PACKAGED)}"
        )
    return Source(name, "hub", revision or tag or None), name, {"revision": revision or tag or "main"}


def _check_request(dtype: str, device: str) -> None:
    if dtype not in DTYPES:
        raise MonadnockError(f"dtype {dtype!r} was asked: {nearest(dtype, DTYPES)}")
    try:
        if torch.empty(0, device=device).is_meta:
            raise MonadnockError("Device 'meta' holds no values, so nothing can be measured on it.")
    except (RuntimeError, AssertionError) as error:
        unknown = "Expected one of" in str(error)  # and all of torch's devices, without auto and disk
        reason = "there is no such one; give cpu, cuda, mps, auto or disk" if unknown else first_line(error)
        raise MonadnockError(f"Device {device!r} cannot be used here: {reason}.") from error


def _check_gguf(path: Path) -> None:
    """Read the whole table of tensors: a file that was cut short is told so."""
    try:
        reader = gguf.GGUFReader(str(path))
        whole = max((tensor.data_offset + tensor.n_bytes for tensor in reader.tensors), default=0)
    except Exception as error:  # the reader fails in many ways on bytes that are not GGUF
        raise MonadnockError(f"{path} is not a readable GGUF file, or was cut short ({first_line(error)}).") from error
    if whole > path.stat().st_size:
        raise MonadnockError(f"{path} was cut short: {whole} bytes are listed, {path.stat().st_size} are there.")


def _check_fits(source: Source, stored: Stored | None, dtype: Any) -> None:
    """Refuse what is larger than memory: loading it would end in the process being killed, without a word."""
    needed, there = stored.bytes_as(dtype) if stored else 0, memory()
    if there is not None and needed > there:
        raise MonadnockError(
            f"{source.id} takes {needed / 1e9:.1f} GB of memory as {str(dtype).removeprefix('torch.')}, there are "
            f"{there / 1e9:.1f} GB; with device disk weights stay in their files, and are read layer by layer."
        )


def _unrounded(stored: Stored | None, dtype: Any, config: Any) -> Any:
    """Return the dtype to load a model in that stays on disk, so that what is written to a folder is not rounded.

    Most weights are turned into the wanted dtype when they are read from the checkpoint. Fused experts, and weights
    that transformers makes of quantised ones, are written in the dtype that this returns.
    """
    quantised = any(getattr(each, "quantization_config", None) for each in (config, config.get_text_config()))
    if dtype == "auto" or quantised:
        return dtype
    return (stored and stored.widest()) or "auto"


def _check_complete(source: Source, info: Any, config: Any) -> None:
    """Refuse a checkpoint that leaves weights of the model random; transformers only warns of it."""
    missing = sorted(info["missing_keys"])
    if differing := [name for name in (*missing, *sorted(info["unexpected_keys"])) if ".variant." in name]:
        asked = getattr(config, "attention_variant", "none")
        held = {name.rpartition(".is_")[2] for name in differing if ".variant.is_" in name} - {asked}
        raise MonadnockError(
            f"{source.id} has attention_variant {asked} in its config.json, but weights "
            f"{f'of {min(held)}' if held else 'that do not say so'}, the first that differs is {differing[0]}; restore "
            "the config.json that was saved with them."
        )
    if wrong := sorted(info["mismatched_keys"]):
        name, found, expected = wrong[0]
        raise MonadnockError(
            f"{source.id} does not fit its config: {name} is {list(found)}, the config asks for {list(expected)}."
        )
    if missing:
        raise MonadnockError(
            f"{source.id} lacks {len(missing)} of the weights that its config asks for, the first is {missing[0]}."
        )


@contextlib.contextmanager
def _told_in_one_sentence(source: Source, part: str = "") -> Iterator[None]:
    """Turn what loaders raise into a `MonadnockError`."""
    try:
        yield
    except MonadnockError:
        raise
    except pickle.UnpicklingError as error:
        raise MonadnockError(
            f"{source.id} could not be loaded: {part}are a pickle that is damaged or holds more than tensors, which "
            "could run code; convert it to safetensors."
        ) from error
    except Exception as error:  # safetensors, gguf, json and the hub all have exceptions of their own
        raise MonadnockError(f"{source.id} could not be loaded: {part}{_cause(part, error)}") from error


def _cause(part: str, error: Exception) -> str:
    if "while serializing" in str(error):  # not "deserializing": what is read may be damaged, too
        return (
            f"are fused, and what the model has of them could not be written to {tempfile.gettempdir()} "
            f"({first_line(error)}); set TMPDIR to a folder with as much room as the checkpoint takes"
        )
    return f"cannot be read ({first_line(error)})" if part else first_line(error)
