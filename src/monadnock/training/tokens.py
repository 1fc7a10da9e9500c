"""Conversations as token ids, in which only what the assistant says counts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from monadnock.data.chat import Message, chat_ids, chat_text
from monadnock.errors import MonadnockError
from monadnock.evaluation.generation import same_start

IGNORED = -100  # label of a token whose prediction does not count
Encoded = dict[str, list[int]]


def encode(tokenizer: Any, conversation: Sequence[Message], length: int) -> Encoded | None:
    """Return `input_ids` and `labels` of a conversation; None if no answer is left within the length.

    Turns are put together by the tokenizer's chat template, or without one under plain headings with BOS in
    front if there is one. Labels are the assistant's tokens and the end of its turn.

    Args:
        tokenizer: of the model.
        conversation: messages; the last one is the assistant's.
        length: tokens after which a conversation is cut off.

    Raises:
        MonadnockError: if the template refuses the conversation, or does not put its turns one after another.
    """
    ids: list[int] = []
    labels: list[int] = []
    for place, message in enumerate(conversation):
        if message["role"] != "assistant":
            continue
        before = chat_ids(tokenizer, conversation[:place], opened=True)
        after = chat_ids(tokenizer, conversation[: place + 1], opened=False)
        whole = _continues(tokenizer, conversation, place)
        start = same_start(before, after)  # an answer's first signs may merge with the last of the heading
        if not whole or start < len(ids) or after[: len(ids)] != ids:
            raise MonadnockError(
                "The tokenizer's chat template does not put turns one after another, so that answers cannot be told "
                "from questions; give one question and one answer in each example."
            )
        labels += [IGNORED] * (start - len(ids)) + after[start:]
        ids = after
    if all(label == IGNORED for label in labels[1:length]):
        return None
    return {"input_ids": ids[:length], "labels": labels[:length]}


def _continues(tokenizer: Any, conversation: Sequence[Message], place: int) -> bool:
    """Say whether the text with an answer goes on from the text up to where it begins."""
    before, after = (chat_text(tokenizer, conversation[: place + more], opened=not more) for more in (0, 1))
    return after.startswith(before)


def collate(batch: Sequence[Encoded], pad: int = 0) -> dict[str, Tensor]:
    """Return a batch, padded on the right: input_ids, attention_mask and labels, [example, token].

    Example:
        >>> collate([{"input_ids": [5, 6], "labels": [-100, 6]}, {"input_ids": [7], "labels": [7]}])["labels"]
        tensor([[-100,    6],
                [   7, -100]])
    """
    width = max(len(each["input_ids"]) for each in batch)

    def filled(name: str, value: int) -> Tensor:
        return torch.tensor([each[name] + [value] * (width - len(each[name])) for each in batch])

    mask = torch.tensor([[1] * len(each["input_ids"]) + [0] * (width - len(each["input_ids"])) for each in batch])
    return {"input_ids": filled("input_ids", pad), "attention_mask": mask, "labels": filled("labels", IGNORED)}


def answer_loss(model: Any, batches: Sequence[dict[str, Tensor]]) -> float:
    """Return the loss of the answers, mean over their tokens (nats); a model in evaluation mode is asked for."""
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in batches:
            moved = {name: values.to(model.device) for name, values in batch.items()}
            labels = moved.pop("labels")[:, 1:]
            logits = model(**moved, use_cache=False).logits[:, :-1].float()
            counted = labels != IGNORED
            loss = torch.nn.functional.cross_entropy(logits[counted], labels[counted], reduction="sum")
            total, count = total + float(loss), count + int(counted.sum())
    return total / max(count, 1)
