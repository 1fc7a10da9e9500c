"""What a scan and the sensitivity of a matrix cost on a GPU at the shapes of a 7B model, beside what they stand on.

A random Llama of the shape of Llama 2 7B in bfloat16, 8 windows of 2,048 tokens: `scan` is a pass with all probes,
`plain` the model's own fused attention over the same windows. Sensitivity is of a random matrix of 4096 x 11008, beside
the products that it needs. Times are in turn in one process, each taken when the GPU has done its work. Attention
variants have a benchmark of their own: `python benchmarks/variants.py --device cuda --dtype bfloat16`.

    python benchmarks/gpu.py [--device cuda] [--layers 32] [--width 4096] [--rounds 5]
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from sensitivity import measured, products
from side_by_side import ratio, times
from transformers import LlamaConfig, LlamaForCausalLM

from monadnock.data import Windows
from monadnock.models import Adapter, Source
from monadnock.observing import observe_text
from monadnock.probes import resolve_probes

HEAD = 128  # dimensions of a head
INNER = 11008 / 4096  # of the FFN, in widths


def made(layers: int, width: int, length: int, dtype: torch.dtype, device: str) -> Adapter:
    """Return a random model, made on the device."""
    heads = max(1, width // HEAD)
    config = LlamaConfig(
        hidden_size=width, intermediate_size=int(width * INNER), num_hidden_layers=layers, num_attention_heads=heads,
        vocab_size=32000, max_position_embeddings=length, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.device(device):
        model = LlamaForCausalLM._from_config(config, dtype=dtype)
    return Adapter(model.eval(), None, Source("random", "object"))


def plain(adapter: Adapter, windows: Windows) -> None:
    for ids in windows.ids:
        adapter.forward(ids, keep=1)


def scan(adapter: Adapter, windows: Windows) -> None:
    observe_text(adapter, windows, 1, resolve_probes(None), check=False)


def done(way: Callable[[], Any], device: str) -> None:
    way()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def told(ways: dict[str, Callable[[], Any]], given: argparse.Namespace) -> None:
    """Time ways in turn, and print each beside the first."""
    taken = times({name: partial(done, way, given.device) for name, way in ways.items()}, given.rounds)
    first = next(iter(ways))
    for name, seconds in taken.items():
        print(f"  {name:12} {statistics.median(seconds):8.3f} s, times {first}: {ratio(seconds, taken[first])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    where = torch.cuda.get_device_name(given.device) if given.device.startswith("cuda") else given.device
    print(f"{where}, torch {torch.__version__}")
    adapter = made(given.layers, given.width, given.length, getattr(torch, given.dtype), given.device)
    ids = torch.randint(3, 32000, (given.windows, given.length), generator=torch.Generator().manual_seed(0))
    windows = Windows(ids, False, "random", 0)
    print(f"{given.windows} x {given.length} tokens, {given.layers} layers, d {given.width}, {given.dtype}")
    told({"plain": partial(plain, adapter, windows), "scan": partial(scan, adapter, windows)}, given)
    if given.device.startswith("cuda"):
        print(f"  peak memory {torch.cuda.max_memory_allocated(given.device) / 1e9:.2f} GB")
    del adapter
    inputs = int(given.width * INNER)
    generator = torch.Generator(given.device).manual_seed(0)
    draw = partial(torch.randn, generator=generator, device=given.device)
    weight, states = draw(given.width, inputs) * 0.05, draw(2, 1024, inputs)
    print(f"sensitivity of {given.width} x {inputs}, 2,048 tokens")
    told({"products": partial(products, weight, states), "one kind": partial(measured, weight, states)}, given)


if __name__ == "__main__":
    main()
