"""Where sentences end, in a text and in its tokens."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

END_OF_SENTENCE = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)|[。！？]")  # noqa: RUF001 - full stops of other scripts


def ends_sentence(tokens: Sequence[str]) -> list[bool]:
    """Say of each token whether a sentence ends with it.

    Args:
        tokens: decoded texts of consecutive tokens.

    Example:
        >>> ends_sentence(["Hey", "?", "!", " It", " is", " 3", ".", "5", "."])
        [False, False, True, False, False, False, False, False, True]
    """
    behind = list(accumulate(map(len, tokens)))  # where the text of each token ends
    ends = {bisect_left(behind, match.end()) for match in END_OF_SENTENCE.finditer("".join(tokens))}
    return [place in ends for place in range(len(tokens))]
