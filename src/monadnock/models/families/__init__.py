"""One file of data per model family; each holds a `FAMILY` and is registered as an entry point."""
