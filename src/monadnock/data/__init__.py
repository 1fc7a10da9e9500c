"""Text: where it comes from, windows of tokens, and the classes that tokens fall into."""

from monadnock.data.sentences import ends_sentence
from monadnock.data.token_classes import token_class, token_columns
from monadnock.data.windows import Windows, token_windows

__all__ = ["Windows", "ends_sentence", "token_class", "token_columns", "token_windows"]
