"""Reading a model in words: what its weights and states say when they are compared with its token vectors."""

from monadnock.reading.lensing import lens
from monadnock.reading.running import read

__all__ = ["lens", "read"]
