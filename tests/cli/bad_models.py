"""Models that cannot be loaded: how each is made from a whole one, and what is said of it."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file

MARK = "code-was-run"  # a file of this name appears where a checkpoint's own code was run

Made = Callable[[Path], Any]  # changes a copy of a whole model; returns what is given to load, by default the copy


def config(**changes: Any) -> Made:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def cut(name: str, keep: float) -> Made:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(keep * len(content))])

    return change


def without(pattern: str) -> Made:
    def change(folder: Path) -> None:
        for file in folder.glob(pattern):
            file.unlink()

    return change


def write(name: str, content: bytes, give: bool = False) -> Made:
    def change(folder: Path) -> Path | None:
        (folder / name).write_bytes(content)
        return folder / name if give else None

    return change


def given(name: str) -> Made:
    return lambda folder: name


def index(*names: str) -> Made:
    found = {"metadata": {}, "weight_map": {f"w{i}": name for i, name in enumerate(names)}}
    return write("model.safetensors.index.json", json.dumps(found).encode())


class Evil:
    """Makes a marker file in the working folder when unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path(MARK),)


def evil_zip(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": Evil()}, folder / "pytorch_model.bin")


def evil_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(), protocol=2))


def short_pickle(folder: Path) -> None:
    as_pickle(folder)
    cut("pytorch_model.bin", 0.5)(folder)


def as_pickle(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")


def lacking(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def own_code(folder: Path) -> None:
    code = f"open({MARK!r}, 'w')\nraise RuntimeError('run')\n"
    for part in ("configuration", "modeling"):
        (folder / f"{part}_own.py").write_text(code)
    own = {"AutoConfig": "configuration_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}
    config(model_type="own", auto_map=own)(folder)


def tiny_gguf(folder: Path) -> Path:
    """Write a GGUF file of two tensors, and return its path."""
    file = folder / "tiny.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(1)
    for name in ("token_embd.weight", "output_norm.weight"):
        writer.add_tensor(name, np.arange(4096, dtype=np.float32).reshape(64, 64))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def short_gguf(keep: float) -> Made:
    def change(folder: Path) -> Path:
        file = tiny_gguf(folder)
        cut(file.name, keep)(folder)
        return file

    return change


BAD: dict[str, tuple[Made, str]] = {
    "missing folder": (lambda folder: folder / "nothing", "does not exist"),
    "a file": (lambda folder: folder / "config.json", "is a file but not a GGUF file"),
    "no config": (without("config.json"), "holds no config.json"),
    "no weights": (without("*.safetensors"), "holds a config.json but no weights"),
    "no tokenizer": (without("tokenizer*"), "its tokenizer cannot be read"),
    "config is not JSON": (write("config.json", b"{"), "not a valid JSON file"),
    "config of another shape": (config(intermediate_size=64), r"does not fit its config: .*\[32, 48\].*\[32, 64\]"),
    "config of a wrong type": (config(hidden_size="wide"), "hidden_size"),
    "more layers than weights": (config(num_hidden_layers=4), "lacks 9 of the weights.*model.layers.3"),
    "a weight is missing": (lacking, "lacks 1 of the weights.*model.layers.1.mlp.up_proj.weight"),
    "cut safetensors": (cut("model.safetensors", 0.5), "its weights cannot be read"),
    "empty safetensors": (cut("model.safetensors", 0.0), "its weights cannot be read"),
    "cut pickle": (short_pickle, "could not be loaded: its weights"),
    "pickle that runs code": (evil_zip, "holds more than tensors, which could run code"),
    "old pickle that runs code": (evil_pickle, "holds more than tensors, which could run code"),
    "index points up": (index("../other.safetensors"), "points outside its folder"),
    "index points to a path": (index("/etc/passwd"), "points outside its folder"),
    "index is not JSON": (write("model.safetensors.index.json", b"["), "could not be loaded"),
    "index is a list": (write("model.safetensors.index.json", b"[]"), "could not be loaded"),
    "encoder": (config(model_type="bert", architectures=["BertModel"]), "'bert' is an encoder, whose attention"),
    "encoder-decoder": (config(model_type="t5"), "'t5' is an encoder-decoder"),
    "known type without a family": (config(model_type="rwkv"), "'rwkv' is not a known family"),
    "unknown type": (config(model_type="hill"), "model type `hill`"),
    "misspelt attribute": (config(rope_tetha=3.0), "rope_tetha=3.0 is unknown to llama: did you mean rope_theta"),
    "attribute that nobody handles": (config(is_causal=False), "is_causal=False .* changes the maths"),
    "own code": (own_code, "contains custom code"),
    "garbage GGUF": (write("x.gguf", b"no magic here" * 99, give=True), "x.gguf is not a readable GGUF file"),
    "garbage behind the magic": (write("x.gguf", b"GGUF" + bytes(range(256)), give=True), "not a readable GGUF"),
    "empty GGUF": (write("x.gguf", b"", give=True), "not a readable GGUF file"),
    "GGUF cut in its header": (short_gguf(0.003), "not a readable GGUF file, or was cut short"),
    "GGUF cut in its weights": (short_gguf(0.6), "not a readable GGUF file, or was cut short|was cut short"),
    "missing GGUF": (given("nothing.gguf"), "nothing.gguf does not exist"),
    "no such name": (given("hill"), "neither a folder.*known are gemma3-270m, smollm2"),
    "misspelt packaged name": (given("smolm2"), "did you mean smollm2"),
    "hub offline": (given("owner/no-such-model"), "owner/no-such-model could not be loaded"),
    "hub offline with a revision": (given("owner/no-such-model@v1"), "owner/no-such-model could not be loaded"),
    "no hub id": (given("own er/model"), "own er/model could not be loaded"),
    "a very long name": (given("x" * 300), "File name too long"),
}


def make(name: str, whole: Path, folder: Path) -> str:
    """Make a bad model in `folder` from a copy of `whole`, and return what is given to load."""
    change, _ = BAD[name]
    copy = folder / "model"
    shutil.copytree(whole, copy)
    return os.fspath(change(copy) or copy)
