import math

import pytest

from monadnock.report import text


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        (" the", "␣the"),
        ("\r\n\t", "␍↵⇥"),
        ("", "(empty)"),
        ("\x00\x1b", "\\x00\\x1b"),
        ("a\u202eb\u200b", "a\\u202eb\\u200b"),
        ("é🪨<b>", "é🪨<b>"),
        ("x" * 30, "x" * 23 + "…"),
    ],
)
def test_tokens_show_what_is_invisible(raw, seen):
    assert text.token(raw) == seen


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (None, "(none)"), (math.nan, "NaN"), (math.inf, "∞"), (-math.inf, "-∞"), (0.0, "0"), (14336, "14336"),
        (24926.22, "24,926"), (0.31252, "0.3125"), (1.23e-6, "1.2e-06"), (-0.5, "-0.5"), (True, "yes"), ("\n", "↵"),
    ],
)  # fmt: skip
def test_cells(value, seen):
    assert text.cell(value) == seen
