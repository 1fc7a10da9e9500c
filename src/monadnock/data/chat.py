"""Conversations as token ids: by the tokenizer's chat template, or under plain headings where it has none."""

from collections.abc import Sequence
from typing import Any

from monadnock.errors import MonadnockError

ROLES = ("system", "user", "assistant")
Message = dict[str, str]
_HEADINGS = {"system": "", "user": "### Instruction:\n", "assistant": "### Response:\n"}


def chat_ids(tokenizer: Any, messages: Sequence[Message], *, opened: bool) -> list[int]:
    """Return the ids of some turns.

    Args:
        tokenizer: of the model.
        messages: each with `role` (system, user or assistant) and `content`.
        opened: go on up to where the assistant's next answer begins.

    Raises:
        MonadnockError: if the template refuses the conversation.
    """
    if getattr(tokenizer, "chat_template", None):
        try:
            told = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opened)
        except Exception as error:  # templates raise what they like
            raise MonadnockError(f"The tokenizer's chat template refuses a conversation: {error}.") from error
        return list(tokenizer(told, add_special_tokens=False)["input_ids"])
    ids = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    for message in messages:
        ids += tokenizer(_HEADINGS[message["role"]], add_special_tokens=False)["input_ids"]
        if message["role"] == "assistant":
            ids += tokenizer(message["content"], add_special_tokens=False)["input_ids"]
            ids += [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        else:
            ids += tokenizer(message["content"] + "\n\n", add_special_tokens=False)["input_ids"]
    return ids + (tokenizer(_HEADINGS["assistant"], add_special_tokens=False)["input_ids"] if opened else [])
