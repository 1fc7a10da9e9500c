"""Clean states are those of the clean model, whichever measure comes first, also where a stopped start goes on."""

import torch

from monadnock.attacking.measures import CleanStates, TheChain
from monadnock.attacking.modes import Change
from monadnock.data import token_windows
from monadnock.interventions import zero_rows
from monadnock.models.replay import capture
from tests.attacking.conftest import LAYER, LENGTH, ROWS, TOKENIZER, WINDOWS


def test_the_chain_of_an_attack_does_not_keep_attacked_states_as_clean(llama, text):
    windows = token_windows(TOKENIZER, text=text, length=LENGTH, tokens=LENGTH * WINDOWS)
    change = Change(lambda: zero_rows(llama, LAYER, ROWS), "rows", None, LAYER)
    clean, last = CleanStates(llama, windows, [change]), llama.num_layers - 1
    TheChain(clean, "text").run(change, {"chain"}, lambda: None)
    for window, ids in enumerate(windows.ids):
        assert torch.equal(clean.last(window), capture(llama, ids, [last])[last])
