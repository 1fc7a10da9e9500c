"""Models: loading them, where their parts are in each family, and watching them run."""
