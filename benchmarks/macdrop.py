"""What MacDrop costs a training step: steps with and without it in turn, on one model, in one run.

Run it with `python benchmarks/macdrop.py`; `--dora` trains DoRA, `--scope all` masks whole matrices.
"""

import argparse
import statistics
import time
from types import SimpleNamespace

import peft
import torch

from monadnock.models import load
from monadnock.training import MacDropCallback


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--steps", type=int, default=20, help="of each kind")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--scope", default="massive")
    parser.add_argument("--dora", action="store_true")
    given = parser.parse_args()
    adapter = load(given.model)
    config = peft.LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", use_dora=given.dora)
    model = peft.get_peft_model(adapter.model, config).train()
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-4)
    ids = torch.randint(3, 1000, (given.batch, given.length))
    callback = MacDropCallback("auto", scope=given.scope)
    state = SimpleNamespace(global_step=0, max_steps=2 * given.steps, epoch=0.0, num_train_epochs=1)
    callback.on_train_begin(None, state, None, model=model, processing_class=adapter.tokenizer)

    def step(macdrop: bool) -> float:
        start = time.perf_counter()
        if macdrop:
            callback.on_step_begin(None, state, None)
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if macdrop:
            callback.on_step_end(None, state, None)
        state.global_step += 1
        return time.perf_counter() - start

    step(True), step(False)
    pairs = [(step(True), step(False)) if turn % 2 else (step(False), step(True))[::-1] for turn in range(given.steps)]
    ratios = sorted(with_it / without for with_it, without in pairs)
    begin = time.perf_counter()
    for _ in range(50):
        callback.on_step_begin(None, state, None)
        callback.on_step_end(None, state, None)
    alone = (time.perf_counter() - begin) / 50
    plain = statistics.median(without for _, without in pairs)
    low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
    print(f"{'dora' if given.dora else 'lora'}, {given.batch} x {given.length} tokens, scope {given.scope}")
    print(f"step without   {1e3 * plain:8.1f} ms (median of {given.steps})")
    print(f"with / without {statistics.median(ratios):8.3f}    (quartiles {low:.3f} to {high:.3f})")
    print(f"masks alone    {1e3 * alone:8.3f} ms, {alone / plain:.4%} of a step")


if __name__ == "__main__":
    main()
