"""What each attention variant costs: training steps of all nine in turn, and looks at outliers, in one run.

Run it with `python benchmarks/variants.py`; `--device cuda --dtype bfloat16` measures on a GPU.
"""

import argparse
import statistics
import time

import torch

from monadnock.models.variants import VARIANTS, build
from monadnock.pretraining import watch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="llama", choices=("llama", "gpt2"))
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    llama = {"hidden_size": given.width, "intermediate_size": 4 * given.width, "num_hidden_layers": given.layers,
             "num_attention_heads": given.heads, "max_position_embeddings": given.length}  # fmt: skip
    gpt2 = {"n_embd": given.width, "n_layer": given.layers, "n_head": given.heads, "n_positions": given.length,
            "attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}  # fmt: skip
    shape = {"llama": llama, "gpt2": gpt2}[given.arch]
    kind = getattr(torch, given.dtype)
    models = {name: build(given.arch, name, vocab_size=4096, **shape).to(given.device).train() for name in VARIANTS}
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-4) for name, model in models.items()}
    ids = torch.randint(3, 4096, (given.batch, given.length), device=given.device)

    def step(name: str) -> float:
        begin = clock(given.device)
        with torch.autocast(given.device, kind, enabled=kind != torch.float32):
            loss = models[name](input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizers[name].step()
        optimizers[name].zero_grad()
        return clock(given.device) - begin

    for name in models:
        step(name)
    rounds = [{name: step(name) for name in models} for _ in range(given.rounds)]
    plain = statistics.median(each["default"] for each in rounds)
    print(f"{given.arch}, d {given.width}, {given.layers} layers, {given.batch} x {given.length} tokens, {given.dtype}")
    print(f"{'default':18}{1e3 * plain:8.1f} ms a step (median of {given.rounds})")
    for name in models:
        ratios = sorted(each[name] / each["default"] for each in rounds)
        low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
        print(f"{name:18}{statistics.median(ratios):8.3f}    (quartiles {low:.3f} to {high:.3f})")
    begin = clock(given.device)
    for _ in range(5):
        watch(models["default"], ids[:4])
    look = (clock(given.device) - begin) / 5
    print(f"{'a look':18}{1e3 * look:8.1f} ms, {look / plain:.2f} steps: {look / (100 * plain):.2%} of 100 steps")


def clock(device: str) -> float:
    """Return the time when all work on the device is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
