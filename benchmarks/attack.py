"""What it saves to keep the states in front of the attacked layer, beside running the whole model for every k.

Two ways through the same attacks on SmolLM2, in turn in one process, so that the ratios hold when the machine's speed
drifts. `python benchmarks/attack.py` prints a Markdown table.

- plain: as scripts do, a whole forward pass for every k, its logits at once, and, for the divergence, the clean
  model's logits kept from one pass before;
- kept: what `monadnock attack` does: layers in front of the attacked one are not run again, and logits are made in
  chunks from what the last layer gave.

Both end with the same perplexity and divergence, which is checked.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import side_by_side
import torch
from torch import Tensor
from torch.nn import functional as F

from monadnock.attacking.measures import CleanStates, Predictions
from monadnock.attacking.modes import Change
from monadnock.data import Windows, token_windows
from monadnock.interventions import zero_rows
from monadnock.models import Adapter, load
from monadnock.models.start import start_states

Result = list[tuple[float, float]]  # perplexity and divergence of every attack


def attacks(adapter: Adapter, layer: int, ks: list[int]) -> list[Change]:
    """Return attacks on the k rows of a layer that are largest for BOS."""
    order = start_states(adapter, adapter.tokenizer.bos_token_id).inner[layer].abs().argsort(descending=True).tolist()
    return [Change(lambda k=k: zero_rows(adapter, layer, order[:k]), f"{order[:k]}", untouched=layer) for k in ks]


def plain(adapter: Adapter, windows: Windows, changes: list[Change], kl: bool) -> Result:
    def logits(ids: Tensor) -> Tensor:
        return adapter.forward(ids, keep=len(ids))[:-1].float()

    clean = [logits(ids).log_softmax(1) for ids in windows.ids] if kl else []
    if not kl:
        [logits(ids) for ids in windows.ids]  # the baseline
    results = []
    for change in changes:
        nats = divergence = 0.0
        tokens = 0
        with change.enter():
            for window, ids in enumerate(windows.ids):
                found = logits(ids)
                nats += float(F.cross_entropy(found, ids[1:], reduction="sum"))
                tokens += len(found)
                if kl:
                    p, q = clean[window], found.log_softmax(1)
                    divergence += float(F.kl_div(q, p, reduction="sum", log_target=True))
        results.append((float(torch.tensor(nats / tokens).exp()), divergence / tokens))
    return results


def kept(adapter: Adapter, windows: Windows, changes: list[Change], kl: bool) -> Result:
    parts = ["perplexity", "kl"] if kl else ["perplexity"]
    measure = Predictions(CleanStates(adapter, windows, changes), "text")
    measure.run(None, parts, lambda: None)  # the baseline
    found = [measure.run(change, parts, lambda: None) for change in changes]
    return [(rows["perplexity"][0]["value"], rows["kl"][0]["value"] if kl else 0.0) for rows in found]


WAYS: dict[str, Callable[[Adapter, Windows, list[Change], bool], Result]] = {"plain": plain, "kept": kept}


def same(results: dict[str, Result]) -> None:
    torch.testing.assert_close(torch.tensor(results["kept"]), torch.tensor(results["plain"]), rtol=1e-4, atol=1e-5)


def peak(way: str, given: argparse.Namespace, kl: bool) -> float:
    place = ("--model", given.model, "--only", way, "--layer", str(given.layer[0]))
    return side_by_side.peak(__file__, *place, *["--kl"] * kl)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--layer", type=int, nargs="+", default=[2, 11, 20], help="attacked layers, one after another")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 3, 5, 10, 30, 50])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=WAYS, help="run one way once and print the peak memory in GB")
    parser.add_argument("--kl", action="store_true", help="with --only: divergence too")
    given = parser.parse_args()
    adapter = load(given.model)
    windows = token_windows(adapter.tokenizer, tokens=given.tokens)
    if given.only:
        changes = attacks(adapter, given.layer[0], given.k[:2])
        print(side_by_side.peak_of(lambda: WAYS[given.only](adapter, windows, changes, given.kl)))
        return
    print(f"{given.model}, {len(given.k)} attacks, {given.tokens} tokens, {torch.get_num_threads()} threads\n")
    print("| attacked layer | metrics | plain, s | kept, s | kept / plain: median (min to max) | peak GB plain, kept |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kl in (False, True):
        memory = [f"{peak(way, given, kl):.2f}" for way in WAYS]
        for layer in given.layer:
            changes = attacks(adapter, layer, given.k)
            ways = {name: partial(way, adapter, windows, changes, kl) for name, way in WAYS.items()}
            taken = side_by_side.times(ways, given.rounds, same)
            row = [
                f"{layer} of {adapter.num_layers}",
                "perplexity, kl" if kl else "perplexity",
                *(f"{statistics.median(taken[way]):.1f}" for way in WAYS),
                side_by_side.ratio(taken["kept"], taken["plain"]),
                ", ".join(memory),
            ]
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
