"""What `verify`, `scan` and `sensitivity` of a checkpoint need that does not fit into the memory they are given.

A random Llama of the shape of Llama 2 7B in bfloat16 (13.7 GB), with the massive rows of Llama-2-7b-hf planted: the
start token's own direction goes through them into one feature of h. Each verb runs in a process of its own, in a
group that is killed when it needs more memory than --limit (Linux; CGROUP is the folder of a memory control group in
which another may be made), first with the model in memory, then with `device="disk"`. Told are time, peak memory
(VmHWM, pages of the files included), bytes that were read from the checkpoint as a share of it, and what the disk
gave (its cache is emptied of the files before). `sensitivity` measures q of layer 1, with a scan for the start token
before: a Hessian of 4,096 inputs, where that of down (11,008) would take more than the limit.

    python benchmarks/offload.py FOLDER CGROUP [--layers 32] [--limit 4] [--tokens 512] [--dtype float32]
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoTokenizer, LlamaConfig

from monadnock.catalogue import entry_named
from monadnock.models.packaged import packaged_path

ENTRY = "Llama-2-7b-hf"
MARK, FEATURE = 17, 2533  # dimension in which only the start token is large; feature of h that becomes massive
VERBS = ("verify", "scan", "sensitivity")


def make(folder, layers):
    """Write the checkpoint, a shard for each layer, and the tokenizer of the packaged model."""
    folder.mkdir(parents=True)
    place = packaged_path("smollm2")
    tokenizer = AutoTokenizer.from_pretrained(place.parent, gguf_file=place.name)
    tokenizer.save_pretrained(folder)
    shape = {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_attention_heads": 32,
        "max_position_embeddings": 4096,
    }
    ids = {"vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = LlamaConfig(**shape, **ids, num_hidden_layers=layers, dtype="bfloat16", architectures=["LlamaForCausalLM"])
    config.save_pretrained(folder)
    known, generator = entry_named(ENTRY), torch.Generator().manual_seed(0)

    def matrix(*size):
        return (torch.randn(*size, generator=generator) * 0.02).bfloat16()

    names, wide, inner = {}, config.hidden_size, config.intermediate_size
    outer = {"model.embed_tokens.weight": matrix(len(tokenizer), wide), "lm_head.weight": matrix(len(tokenizer), wide)}
    outer["model.norm.weight"] = torch.ones(wide, dtype=torch.bfloat16)
    outer["model.embed_tokens.weight"][tokenizer.bos_token_id, MARK] = 200
    for layer in range(-1, layers):
        tensors = outer
        if layer >= 0:
            sizes = {f"self_attn.{role}_proj": (wide, wide) for role in "qkvo"}
            sizes |= {"mlp.gate_proj": (inner, wide), "mlp.up_proj": (inner, wide), "mlp.down_proj": (wide, inner)}
            tensors = {f"model.layers.{layer}.{name}.weight": matrix(*size) for name, size in sizes.items()}
            for norm in ("input_layernorm", "post_attention_layernorm"):
                tensors[f"model.layers.{layer}.{norm}.weight"] = torch.ones(wide, dtype=torch.bfloat16)
        if layer == known.layer:
            for rank, row in enumerate(known.features):
                for role in ("gate", "up"):
                    tensors[f"model.layers.{layer}.mlp.{role}_proj.weight"][row, MARK] = 0.5 - 0.05 * rank
                tensors[f"model.layers.{layer}.mlp.down_proj.weight"][FEATURE, row] = 4
        file = f"model-{layer + 2:05d}-of-{layers + 1:05d}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        names |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def size_of(folder):
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def forget(folder):
    """Let the system drop what it has of the files in memory."""
    for file in folder.glob("*.safetensors"):
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def child(asked):
    """Run one verb within the limit and print what it needed."""
    import accelerate.utils.offload as offload

    from monadnock import scan, verify
    from monadnock.sensitivity import measure

    read = 0

    class Counted:
        def __init__(self, *arguments, **options):
            self.file = safe_open(*arguments, **options)

        def __enter__(self):
            self.opened = self.file.__enter__()
            return self

        def __exit__(self, *error):
            return self.file.__exit__(*error)

        def get_tensor(self, name):
            nonlocal read
            tensor = self.opened.get_tensor(name)
            read += tensor.nbytes
            return tensor

    offload.safe_open = Counted
    group = asked.cgroup / "monadnock-benchmark"
    group.mkdir(exist_ok=True)
    newer = (group / "memory.max").exists()
    (group / ("memory.max" if newer else "memory.limit_in_bytes")).write_text(str(asked.limit * 2**30))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    how = {"dtype": asked.dtype, "device": asked.device, "progress": False}
    text = {"tokens": asked.tokens, "length": min(asked.tokens, 256)}
    began = time.perf_counter()
    if asked.verb == "verify":
        told = str(verify(str(asked.folder), entry=ENTRY, **how)).partition(":")[0]
    elif asked.verb == "sensitivity":
        shutil.rmtree(asked.folder / "measured", ignore_errors=True)  # a run that is there is added to
        run = measure(str(asked.folder), out=asked.folder / "measured", layers=[1], modules=["q"], **text, **how)
        told = f"{run.table('sensitivity').height} kinds of q in layer 1"
    else:
        run = scan(str(asked.folder), out=asked.folder / "run", force=True, **text, **how)
        massive = run.table("massive_weights").filter("massive").sort("rank")
        told = f"massive in layer {massive['layer'][0]}: {massive['feature'].to_list()}"
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    disk = int(re.search(r"^read_bytes: (\d+)", Path("/proc/self/io").read_text(), re.M)[1])
    print(json.dumps({"seconds": time.perf_counter() - began, "peak": peak, "read": read, "disk": disk, "told": told}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("cgroup", type=Path)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--limit", type=int, default=4, help="GiB")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--verb", choices=VERBS, help=argparse.SUPPRESS)
    parser.add_argument("--device", default="disk", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.verb:
        child(asked)
        return
    if not (asked.folder / "model.safetensors.index.json").is_file():
        make(asked.folder, asked.layers)
    whole = size_of(asked.folder)
    print(f"checkpoint of {whole / 1e9:.1f} GB, {asked.limit} GiB of memory allowed, {asked.dtype}", flush=True)
    for device in ("cpu", "disk"):
        for verb in VERBS:
            forget(asked.folder)
            command = [sys.executable, __file__, *sys.argv[1:], "--verb", verb, "--device", device]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            if ended.returncode:
                print(f"{verb} on {device}: killed" if ended.returncode == -9 else ended.stderr, flush=True)
                continue
            found = json.loads(ended.stdout.splitlines()[-1])
            print(
                f"{verb} on {device}: {found['seconds']:.0f} s, peak {found['peak'] / 1e9:.2f} GB, read "
                f"{found['read'] / whole:.1%} of the checkpoint, disk {found['disk'] / whole:.1%}; {found['told']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
