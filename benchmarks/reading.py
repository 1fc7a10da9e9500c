"""What it saves to read states by a dictionary in blocks of the vocabulary, beside one product with all of it.

Two ways to the same words, in turn in one process. `python benchmarks/reading.py` prints a Markdown table.

- whole: as scripts do, every state of every layer times the whole dictionary, then the largest of each;
- blocks: what `monadnock lens` does: the vocabulary goes by in blocks, of which only the largest are kept.

Peak memory is that of a process of its own, less what it had after the model was loaded and the prompt had run.
"""

import argparse
from collections.abc import Callable
from functools import partial

import side_by_side
import torch
from torch import Tensor
from torch.nn import functional as F

from monadnock.data import token_windows
from monadnock.models import load
from monadnock.reading.dictionary import Dictionary, output_dictionary
from monadnock.reading.states import see_prompt

TOP = 8


def whole(dictionary: Dictionary, states: Tensor) -> Tensor:
    rows = F.normalize(dictionary.rows.float(), dim=1)
    return (dictionary.states(states) @ rows.t()).topk(TOP, dim=1).values


def blocks(dictionary: Dictionary, states: Tensor) -> Tensor:
    return dictionary.top(dictionary.states(states), TOP).amplitudes


WAYS: dict[str, Callable[[Dictionary, Tensor], Tensor]] = {"whole": whole, "blocks": blocks}


def same(results: dict[str, Tensor]) -> None:
    torch.testing.assert_close(results["blocks"], results["whole"], rtol=1e-4, atol=1e-5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--length", type=int, nargs="+", default=[32, 256], help="tokens of the prompt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=[*WAYS, "nothing"], help="run one way once and print the peak memory in GB")
    given = parser.parse_args()
    adapter = load(given.model)
    dictionary = output_dictionary(adapter)
    size = sum(parameter.numel() * parameter.element_size() for parameter in adapter.model.parameters()) / 2**30
    if not given.only:
        print(f"{given.model} ({size:.2f} GB), {torch.get_num_threads()} threads, {given.rounds} rounds\n")
        print("| prompt | states x words | whole, s | blocks, s | blocks / whole | GB more: whole, blocks |")
        print("| --- | --- | --- | --- | --- | --- |")
    for length in given.length:
        ids = token_windows(adapter.tokenizer, length=length, tokens=length).ids[0]
        states = see_prompt(adapter, ids).states.flatten(0, 1)
        if given.only:
            way = WAYS.get(given.only, lambda *_: torch.empty(0))
            print(side_by_side.peak_of(partial(way, dictionary, states)))
            return
        ways = {name: partial(way, dictionary, states) for name, way in WAYS.items()}
        taken = side_by_side.times(ways, given.rounds, same)
        place = ("--model", given.model, "--length", str(length), "--only")
        memory = {name: side_by_side.peak(__file__, *place, name) for name in [*WAYS, "nothing"]}
        row = [
            f"{length} tokens",
            f"{len(states):,} x {len(dictionary.rows):,}",
            *(f"{sorted(seconds)[len(seconds) // 2]:.1f}" for seconds in taken.values()),
            side_by_side.ratio(taken["blocks"], taken["whole"]),
            ", ".join(f"{memory[name] - memory['nothing']:.2f}" for name in WAYS),
        ]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
