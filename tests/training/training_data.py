"""What tests of MacDrop share: tiny frozen models, adapters on them, what an FFN reads, and small trainings."""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator

from monadnock.attacking.targets import Aim
from monadnock.models import Adapter, Source
from monadnock.training import MacDropCallback
from monadnock.training.macdrop import bare_adapter
from tests.tiny import tiny_model

FAMILIES = ("llama", "phi3", "gpt2", "opt", "mixtral", "gpt_oss")
LAYER, ROWS = 1, (9, 40, 3)
IDS = torch.randint(3, 100, (2, 16), generator=torch.Generator().manual_seed(5))


def frozen(model_type: str, dtype: torch.dtype = torch.float32) -> Adapter:
    """Return a tiny model none of whose weights is trained."""
    model = tiny_model(model_type).to(dtype).requires_grad_(False)
    return Adapter(model, None, Source(model_type, "object"))


def an_expert(adapter: Adapter) -> int | None:
    """Return an expert where there are some."""
    return None if adapter.num_experts is None else 2


def ffn(adapter: Adapter, layer: int = LAYER) -> Any:
    """Return the module in which up and gate are read; in OPT it is up itself."""
    return getattr(adapter.layers[layer], str(adapter.family.up).partition("#")[0].partition(".")[0])


def activation(adapter: Adapter, layer: int = LAYER) -> Any:
    """Return a module that runs in the middle of that one."""
    return {
        "gpt2": lambda: adapter.layers[layer].mlp.act,
        "opt": lambda: adapter.layers[layer].activation_fn,
        "mixtral": lambda: adapter.layers[layer].mlp.experts,
        "gpt_oss": lambda: adapter.layers[layer].mlp.experts,
    }.get(adapter.family.model_type, lambda: adapter.layers[layer].mlp.down_proj)()


def matrices(adapter: Adapter, layer: int = LAYER, expert: int | None = None) -> dict[str, torch.Tensor]:
    """Return up and gate [d_mlp, d_model] as a module that runs now would read them, shared with the model."""
    roles = [role for role in ("up", "gate") if adapter.has(role)]
    found = {}
    for role in roles:
        path = str(getattr(adapter.family, role)).partition("#")[0]
        part: Any = adapter.layers[layer]
        for name in path.split("."):
            while hasattr(part, "base_layer"):
                part = part.base_layer
            part = getattr(part, name)
        while hasattr(part, "base_layer"):
            part = part.base_layer
        stored = part if isinstance(part, torch.Tensor) else part.weight
        found[role] = adapter.cut(stored, role, expert).read()
    return found


def loss_of(model: Any) -> torch.Tensor:
    """Return the loss on IDS; dropout inside the model is the same in every call."""
    torch.manual_seed(0)
    return model(input_ids=IDS, labels=IDS, use_cache=False).loss


def logits_of(model: Any) -> torch.Tensor:
    """Return the logits on IDS; dropout inside the model is the same in every call."""
    torch.manual_seed(0)
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def read_by_ffn(
    adapter: Adapter, layer: int = LAYER, expert: int | None = None, model: Any = None
) -> dict[str, torch.Tensor]:
    """Run the model once, in the mode that it is in, and return what up and gate were when the FFN began."""
    seen: dict[str, torch.Tensor] = {}

    def look(*_: Any) -> None:
        seen.update({role: part.clone() for role, part in matrices(adapter, layer, expert).items()})

    handle = ffn(adapter, layer).register_forward_pre_hook(look)
    try:
        logits_of(model or adapter.model)
    finally:
        handle.remove()
    return seen


def masked_by_hand(model: Any, read: dict[str, torch.Tensor], layer: int = LAYER, expert: int | None = None) -> Any:
    """Return a copy of a model in which up and gate are what was read."""
    model = copy.deepcopy(model)
    for role, part in matrices(bare_adapter(model, None), layer, expert).items():
        part.copy_(read[role])
    return model


def bits(model: Any) -> dict[str, tuple[int, torch.Tensor]]:
    """Return every parameter: which object it is, and its raw bytes."""
    return {
        name: (id(p), p.detach().contiguous().view(torch.uint8).clone())
        for name, p in model.named_parameters()
        if p.numel()
    }


def frozen_bits(model: Any) -> dict[str, tuple[int, torch.Tensor]]:
    """Return what `bits` does of all that is not an adapter."""
    return {name: part for name, part in bits(model).items() if "lora_" not in name}


def assert_same(model: Any, before: dict[str, tuple[int, torch.Tensor]]) -> None:
    """Assert that the parameters of which bits were taken are the very same objects and bits."""
    after = bits(model)
    assert before.keys() <= after.keys()
    assert all(after[name][0] == before[name][0] for name in before)
    assert all(torch.equal(after[name][1], before[name][1]) for name in before)


def hooks(model: Any) -> int:
    """Return how many hooks a model has."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def with_adapter(model: Any, method: str = "lora", dropout: float = 0.0) -> Any:
    """Return a model with a random LoRA or DoRA on all linear layers, or on the experts of a mixture."""
    options: dict[str, Any] = {"target_modules": "all-linear", "lora_dropout": dropout}
    if model.config.model_type in ("mixtral", "gpt_oss"):
        names = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
        options = {"target_modules": ["q_proj", "v_proj"], "target_parameters": names}
    if model.config.model_type == "gpt2":
        options["fan_in_fan_out"] = True
    torch.manual_seed(1)
    config = LoraConfig(r=2, lora_alpha=4, init_lora_weights=False, use_dora=method == "dora", **options)
    return get_peft_model(model, config)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Return the gradients of all that is trained, after one loss on IDS."""
    model.zero_grad(set_to_none=True)
    loss_of(model).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert found and all(p.grad is not None for p in model.parameters() if p.requires_grad)
    return found


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Assert that two dicts of tensors are equal bit for bit."""
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


# trainings

EXAMPLES = 16
EXAMPLE_IDS = torch.randint(3, 100, (EXAMPLES, 12), generator=torch.Generator().manual_seed(6))
DATA = [{"input_ids": row, "labels": row} for row in EXAMPLE_IDS]


class Watcher(TrainerCallback):
    """Keeps what the FFN of a layer reads: (step, whether in training mode, up, gate) of every pass."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, bool, torch.Tensor, torch.Tensor]] = []
        self.step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        adapter = bare_adapter(model, None)

        def look(module: Any, *_: Any) -> None:
            read = matrices(adapter)
            self.seen.append((self.step, module.training, read["up"].clone(), read["gate"].clone()))

        self.handle = ffn(adapter).register_forward_pre_hook(look)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step = state.global_step + 1

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.handle.remove()


class Killed(Exception):  # noqa: N818 - not an error of ours
    pass


class Killer(TrainerCallback):
    """Ends a training at the beginning of a step, as a power cut does."""

    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            raise Killed


def trainer(folder: Any, model: Any, callbacks: list[Any], *, tokenizer: Any = None, **options: Any) -> Trainer:
    """Return a Trainer on the CPU, of 4 steps an epoch unless accumulation or the batch say otherwise."""
    given = {
        "num_train_epochs": 1,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "save_strategy": "no",
        "logging_strategy": "no",
        "dataloader_pin_memory": False,
    }
    arguments = TrainingArguments(
        output_dir=str(folder), report_to=[], disable_tqdm=True, use_cpu=True, **given | options
    )
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=DATA,
        eval_dataset=DATA[:4],
        callbacks=callbacks,
        processing_class=tokenizer,
        data_collator=default_data_collator,
    )


def adapter_weights(model: Any) -> dict[str, torch.Tensor]:
    """Return copies of the weights of the adapter."""
    return {name: value.clone() for name, value in get_peft_model_state_dict(model).items()}


@contextmanager
def breaks(module: Any, kind: type[BaseException]) -> Iterator[None]:
    """Let a module raise in the middle of its pass."""

    def fail(*_: Any) -> None:
        raise kind

    handle = module.register_forward_pre_hook(fail)
    try:
        yield
    finally:
        handle.remove()


def rank(index: int, port: int, folder: Path) -> None:
    """Train as one of two processes, and keep what was read and what came out; here, so that it imports little."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(index), "LOCAL_RANK": str(index), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    callback, watcher, model = MacDropCallback([Aim(LAYER, None, ROWS)]), Watcher(), with_adapter(tiny_model("llama"))
    before = frozen_bits(model)
    trainer(folder, model, [callback, watcher], ddp_backend="gloo").train()
    assert_same(model, before)
    assert hooks(model) == 0
    found = {"masks": [up == 0 for _, _, up, _ in watcher.seen], "history": callback.history}
    torch.save(found | {"weights": adapter_weights(model)}, folder / f"{index}.pt")
    torch.distributed.destroy_process_group()
