"""A model that accelerate keeps on disk or on the CPU is scanned with the same numbers as one in memory."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from torch import nn

from monadnock.errors import MonadnockError
from monadnock.models import Adapter, Source
from monadnock.models.components import components, parameters
from monadnock.models.offload import present
from monadnock.scanning import scan
from tests.tiny import tiny_model
from tests.words import random_words, word_tokenizer, write_words


@pytest.mark.parametrize("model_type", ["llama", "phi3", "gpt_oss"])
@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_offloaded_scan_equals_scan_in_memory(model_type, where, tmp_path):
    """Every table is the same, whether the weights are there or fetched layer by layer."""
    text = write_words(tmp_path, random_words(400))
    tables = []
    for offload in (False, True):
        model = tiny_model(model_type)
        if offload and where == "cpu":
            cpu_offload(model, torch.device("cpu"))
        elif offload:
            disk_offload(model, str(tmp_path / "offload"), torch.device("cpu"))
            assert next(model.parameters()).is_meta
        run = scan(
            model, word_tokenizer(), text=text, length=32, tokens=64, out=tmp_path / f"run{offload}", progress=False
        )
        tables.append(run.tables())
    for name, frame in tables[0].items():
        assert frame.equals(tables[1][name]), name
    assert tables[0]["weights"].height > 0


def test_every_parameter_is_reached_on_disk(tmp_path):
    """The values behind a meta parameter are those that the model had."""
    whole, moved = tiny_model("llama"), tiny_model("llama")
    disk_offload(moved, str(tmp_path), torch.device("cpu"))
    here = {name: values for _, name, values in parameters(Adapter(whole, None, Source("t", "object")))}
    there = {name: values for _, name, values in parameters(Adapter(moved, None, Source("t", "object")))}
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)
    total = sum(count for _, _, count in components(Adapter(moved, None, Source("t", "object"))))
    assert total == sum(p.numel() for p in whole.parameters())


def test_a_weight_without_values_is_an_error():
    """A meta weight that nobody keeps is told in a sentence."""
    with pytest.raises(MonadnockError, match="has no values"):
        present(nn.Linear(2, 2, device="meta"), "weight")
