"""What a full scan costs beside the plain forward pass, and beside keeping everything and computing afterwards.

Three ways through one window of SmolLM2, in turn in one process, so that the ratios hold when the machine's speed
drifts; memory is the peak of a process of its own. `python benchmarks/scan.py` prints a Markdown table.

- plain: the model's own fused attention, no observation;
- scan: `observe_text` with every built-in probe, the start token's pass included, the self-check not (it is one more
  plain pass over the first window of a text, however long the text is);
- eager: output_attentions and output_hidden_states, x_down kept by hooks, then the same numbers from the whole tensors.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import side_by_side
import torch
from torch import Tensor

from monadnock.data import Windows, token_windows
from monadnock.models import Adapter, load
from monadnock.probes import resolve_probes
from monadnock.scanning import observe_text


def plain(adapter: Adapter, windows: Windows) -> None:
    adapter.forward(windows.ids[0])


def scan(adapter: Adapter, windows: Windows) -> None:
    observe_text(adapter, windows, windows.ids[0, 0].item(), resolve_probes(None), check=False)


def eager(adapter: Adapter, windows: Windows) -> None:
    model, ids = adapter.model, windows.ids[:1]
    inner: dict[int, Tensor] = {}
    hooks = [
        adapter.module(layer, adapter.family.down).register_forward_pre_hook(
            lambda _module, args, layer=layer: inner.__setitem__(layer, args[0].detach())
        )
        for layer in range(adapter.num_layers)
    ]
    before = adapter.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            out = model(
                input_ids=ids, use_cache=False, output_attentions=True, output_hidden_states=True, logits_to_keep=1
            )
            for states in [*out.hidden_states[1:], *inner.values()]:
                _magnitude(states[0])
            for probs in out.attentions:
                _attention(probs[0])
    finally:
        model.set_attn_implementation(before)
        for hook in hooks:
            hook.remove()


def _magnitude(x: Tensor) -> None:
    """What table `layers`, `activations` and `features` need, from one whole tensor [seq, width]."""
    a = x.abs()
    mean = a.mean()
    centred = x - x.mean()
    results = (
        a.flatten().topk(32),
        a.median(),
        mean,
        x.square().mean().sqrt(),
        centred.pow(4).mean() / centred.square().mean().square(),
        (a > 1000 * mean).sum(),
        a.amax(0),
        a.mean(0),
    )
    del results


def _attention(p: Tensor) -> None:
    """What tables `attention` and `heads` need, from one whole tensor [head, query, key]."""
    size = p.shape[-1]
    c = p.sum(1)
    index = torch.arange(size)
    results = (
        c.topk(8),
        (c / torch.arange(size, 0, -1)).max(1),
        c.mean(0).topk(8),
        (c > 1000 * c.mean(1, keepdim=True)).sum(1),
        -(p[:, 4::8] * p[:, 4::8].clamp(min=1e-30).log()).sum(2).mean(1),  # the queries that scan takes
        (p * (index[:, None] - index)).sum(2).mean(1),
        [p.diagonal(-back, dim1=1, dim2=2).sum(1) for back in range(8)],
    )
    del results


WAYS: dict[str, Callable[[Adapter, Windows], None]] = {"plain": plain, "scan": scan, "eager": eager}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--length", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=WAYS, help="run one way once and print the peak memory in GB")
    given = parser.parse_args()
    adapter = load(given.model)
    if given.only:
        windows = token_windows(adapter.tokenizer, length=given.length[0], tokens=given.length[0])
        print(side_by_side.peak_of(lambda: WAYS[given.only](adapter, windows)))
        return
    print(f"{given.model}, torch {torch.__version__}, {torch.get_num_threads()} threads, {given.rounds} rounds\n")
    print("| window | way | seconds (median) | x plain: median (min to max) | fastest | peak GB | GB over plain |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for length in given.length:
        windows = token_windows(adapter.tokenizer, length=length, tokens=length)
        taken = side_by_side.times({name: partial(way, adapter, windows) for name, way in WAYS.items()}, given.rounds)
        place = ("--model", given.model, "--length", str(length))
        memory = {name: side_by_side.peak(__file__, *place, "--only", name) for name in WAYS}
        for name, seconds in taken.items():
            row = [
                f"1 x {length}",
                name,
                f"{statistics.median(seconds):.2f}",
                side_by_side.ratio(seconds, taken["plain"]),
                f"{min(seconds) / min(taken['plain']):.2f}",
                f"{memory[name]:.2f}",
                f"{memory[name] - memory['plain']:.2f}",
            ]
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
