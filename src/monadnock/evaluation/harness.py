"""Show a model to lm-eval, with the BOS token under control, and leave nothing changed by it."""

import copy
import io
import logging
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch

from monadnock.models.adapter import Adapter

SEED = 0
LOGITS = 2**20  # in a batch, per position: 4 GiB in float32 for prompts of 1,024 tokens; lm-eval holds it twice


@contextmanager
def language_model(adapter: Adapter, bos: bool, context: int | None = None) -> Iterator[Any]:
    """Show the model to lm-eval, with a BOS token in front if and only if `bos`, and give it back as it was.

    Prompts longer than `context`, by default the model's own, lose tokens behind
    BOS.

    lm-eval leaves BOS tokens to the tokenizer, and many (GPT-2, SmolLM2) have one that they never put in front.
    """
    from lm_eval.models.huggingface import HFLM

    tokenizer = copy.deepcopy(adapter.tokenizer)  # lm-eval gives it a padding token

    class Model(HFLM):
        front = [adapter.tokenizer.bos_token_id] if bos else []

        @property
        def device(self) -> torch.device:
            return adapter.device  # where ids go, also when weights are offloaded

        def tok_encode(self, string, add_special_tokens=None, left_truncate_len=None, **_):
            ids = tokenizer.encode(string, add_special_tokens=False)
            if add_special_tokens is not False and ids[:1] != self.front:
                ids = [*self.front, *ids]
            if not left_truncate_len or len(ids) <= left_truncate_len:
                return ids
            kept = max(left_truncate_len - len(self.front), 1)
            return [*self.front, *ids[-kept:]]  # what is too long loses what stands behind BOS

        def tok_batch_encode(self, strings, padding_side="left", left_truncate_len=None, truncation=False):
            rows = [self.tok_encode(string, left_truncate_len=left_truncate_len) for string in strings]
            batch = tokenizer.pad({"input_ids": rows}, padding_side=padding_side, return_tensors="pt")
            return batch["input_ids"], batch["attention_mask"]

        def loglikelihood_rolling(self, requests, disable_tqdm=False):
            self.front, front = [], self.front  # lm-eval puts its prefix token there itself
            try:
                return super().loglikelihood_rolling(requests, disable_tqdm)
            finally:
                self.front = front

        def generate_until(self, requests, disable_tqdm=False):
            self.batch_size_per_gpu, size = 1, self.batch_size_per_gpu  # padding in front would move position 0
            try:
                return super().generate_until(requests, disable_tqdm)
            finally:
                self.batch_size_per_gpu = size

    training = [module for module in adapter.model.modules() if module.training]
    adapter.model.tie_weights = lambda: None  # else lm-eval would tie weights that differ on purpose
    try:
        yield Model(
            pretrained=adapter.model,
            tokenizer=tokenizer,
            batch_size=max(1, min(16, LOGITS // len(tokenizer))),
            max_length=context or adapter.context_length,
            prefix_token_id=tokenizer.bos_token_id if bos else tokenizer.eos_token_id,
        )
    finally:
        del adapter.model.tie_weights
        for module in training:
            module.training = True


@contextmanager
def undisturbed() -> Iterator[None]:
    """Silence lm-eval and the libraries under it, make random choices the same each time, and give all of it back."""
    import numpy as np

    python, numpy, disabled = random.getstate(), np.random.get_state(), logging.root.manager.disable
    variable = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"  # else lm-eval forks a process per core to resample
    logging.disable(logging.CRITICAL)
    quiet = io.StringIO()
    gpus = range(torch.cuda.device_count())
    try:
        with redirect_stdout(quiet), redirect_stderr(quiet), torch.random.fork_rng(devices=gpus):
            random.seed(SEED)
            np.random.seed(SEED)
            torch.manual_seed(SEED)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        logging.disable(disabled)
        os.environ.pop("DISABLE_MULTIPROC")
        if variable is not None:
            os.environ["DISABLE_MULTIPROC"] = variable
