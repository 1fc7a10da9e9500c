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
        return list(tokenizer(chat_text(tokenizer, messages, opened=opened), add_special_tokens=False)["input_ids"])
    ids = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    for message in messages:
        ids += tokenizer(_HEADINGS[message["role"]], add_special_tokens=False)["input_ids"]
        if message["role"] == "assistant":
            ids += tokenizer(message["content"], add_special_tokens=False)["input_ids"]
            ids += [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        else:
            ids += tokenizer(message["content"] + "\n\n", add_special_tokens=False)["input_ids"]
    return ids + (tokenizer(_HEADINGS["assistant"], add_special_tokens=False)["input_ids"] if opened else [])


def chat_text(tokenizer: Any, messages: Sequence[Message], *, opened: bool) -> str:
    """Return the text of some turns by the tokenizer's template; where it has none, under plain headings.

    Raises:
        MonadnockError: as `chat_ids`.
    """
    if not getattr(tokenizer, "chat_template", None):
        told = "".join(_HEADINGS[each["role"]] + each["content"] + "\n\n" for each in messages)
        return told + (_HEADINGS["assistant"] if opened else "")
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opened))
    except Exception as error:  # templates raise what they like
        raise MonadnockError(f"The tokenizer's chat template refuses a conversation: {error}.") from error
