"""Text to scan: a file, a data set, or the prose that every CPython carries."""

from collections.abc import Iterator
from pathlib import Path

from monadnock.errors import MonadnockError, nearest

BUILT_IN = "pydoc_data.topics"


def built_in_text() -> str:
    """Return the built-in text: the language reference in the standard library, about 465,000 characters."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def check_text(text: str | Path | None, dataset: str | None) -> None:
    """Refuse, before anything slow happens, two texts at once and a file that cannot be read.

    Raises:
        MonadnockError: as `read_text`, or if both are given.
    """
    if text is not None and dataset is not None:
        raise MonadnockError("Both a text file and a data set were given; give one of them.")
    if text is not None:
        read_text(text)


def read_text(path: str | Path) -> str:
    """Return the contents of a text file.

    Raises:
        MonadnockError: if it is missing, a folder, or not UTF-8.
    """
    path = Path(path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"cannot be read ({error.strerror})"
        raise MonadnockError(f"Text file {path} {reason}; give a UTF-8 text file.") from error


def read_dataset(name: str, max_chars: int) -> str:
    """Return text from a `datasets` data set, as much of its text column as is needed.

    Args:
        name: `owner/name`, or `owner/name:config:split`; the split defaults to `test`, else the first there is.
        max_chars: stop after this many characters.

    Raises:
        MonadnockError: as `stream_dataset`.
    """
    return "\n\n".join(stream_dataset(name, max_chars))


def stream_dataset(name: str, max_chars: int) -> Iterator[str]:
    """Yield the documents of a `datasets` data set one by one, without keeping them.

    Args:
        name: as for `read_dataset`.
        max_chars: stop behind the document with which there are this many characters.

    Raises:
        MonadnockError: if `datasets` is not installed, or the data set, split or text column is not found.
    """
    try:
        import datasets  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise MonadnockError(
            "Data sets need an extra: pip install -e '.[data]' in the clone, or give a text file."
        ) from error
    path, config, split = [*name.split(":"), "", ""][:3]
    try:
        loaded = datasets.load_dataset(path, config or None, streaming=True)
        split = split or ("test" if "test" in loaded else next(iter(loaded)))
        if split not in loaded:
            known = nearest(str(split), [str(each) for each in loaded])
            raise MonadnockError(f"Data set {name} has no split {str(split)!r}: {known}")
        size = 0
        for row in loaded[split]:
            column = (
                "text" if "text" in row else next((key for key, value in row.items() if isinstance(value, str)), "")
            )
            if not column:
                raise MonadnockError(f"Data set {name} has no text column; it has {', '.join(row)}.")
            yield row[column]
            size += len(row[column])
            if size >= max_chars:
                break
    except MonadnockError:
        raise
    except Exception as error:  # the library raises many kinds; each means that the data set is not to be had
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MonadnockError(f"Data set {name} could not be loaded: {reason}") from error
