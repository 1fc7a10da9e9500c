"""Keep libraries to themselves while they load."""

import contextlib
import io
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and advice to itself while a model loads."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # GGUF conversion draws a bar that cannot be turned off
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
