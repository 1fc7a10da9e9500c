"""What a table of a run is, and the columns that mean the same wherever they stand."""

from dataclasses import dataclass

import polars as pl

INT, REAL, TEXT, FLAG = pl.Int64, pl.Float64, pl.String, pl.Boolean

# Columns that mean the same wherever they stand.
STREAM = ("stream", TEXT, "kind of state: residual (h), down_proj_input (x_down), ...")
LAYER = ("layer", INT, "0-based index of the decoder layer; null where the finding belongs to no layer")
EXPERT = ("expert", INT, "0-based expert; null in dense layers")
SEQUENCE = ("sequence", INT, "0-based window of the scanned text")
POSITION = ("position", INT, "0-based position in the window, BOS counted where it was put in front")
TOKEN_ID = ("token_id", INT, "id of the token at that position")
TOKEN = ("token", TEXT, "decoded text of the token at that position")
TOKEN_CLASS = ("token_class", TEXT, "start, delimiter, weak (articles, prepositions, conjunctions, blanks) or other")
FEATURE = ("feature", INT, "0-based index into the stream's width")
RANK = ("rank", INT, "1 for the largest")


@dataclass(frozen=True)
class Table:
    """A table's name, what a row is, its columns as (name, polars type, meaning), and the verb that fills it."""

    name: str
    doc: str
    columns: tuple[tuple[str, type[pl.DataType], str], ...]
    verb: str = "scan"

    @property
    def polars(self) -> pl.Schema:
        """The polars schema of the table."""
        return pl.Schema({name: dtype for name, dtype, _ in self.columns})

    def frame(self, rows: list[dict] | pl.DataFrame | None = None) -> pl.DataFrame:
        """Return rows as a frame of exactly this schema; missing columns become null, unknown ones are an error."""
        if rows is None or len(rows) == 0:
            return pl.DataFrame(schema=self.polars)
        frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(rows, infer_schema_length=None)
        if unknown := set(frame.columns) - set(self.polars):
            raise ValueError(f"table {self.name} has no column {sorted(unknown)}")
        return frame.select(
            (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
            for name, dtype in self.polars.items()
        )
