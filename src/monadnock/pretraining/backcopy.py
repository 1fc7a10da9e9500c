"""The bigram-backcopy task: a Markov chain in which, after a trigger token, the token before it is copied.

Made on the fly (Guo et al., 2024): a model of three blocks on it grows sinks within a minute on one core.
"""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from monadnock.data.seeds import mixed
from monadnock.errors import MonadnockError
from monadnock.training.tokens import IGNORED

BOS = 0


class Backcopy(Dataset):
    """Sequences of BOS and `length` tokens, each the same whenever it is asked for.

    The first token is drawn evenly from those that are no triggers, each further one from a row of a fixed random
    transition matrix, except after a trigger: there it is the token in front of the trigger. The prediction at BOS does
    not count: a loss on it makes a massive state there, whatever the attention.

    Attributes:
        transitions: [token, token], probabilities of a row sum to 1.

    Args:
        size: how many sequences there are.
        length: tokens behind BOS.
        tokens: how many there are; BOS is one more, 0.
        triggers: how many of them are triggers, the first ones.
        spread: of the transition matrix: its rows are softmax(spread N(0, 1)).
        pairs: whether a sequence may begin with any token, and so with two triggers, which then take turns to its end.
        chain: seed of the transition matrix, the same for training and evaluation.
        seed: of the sequences.

    Raises:
        MonadnockError: on numbers that make no task.

    Example:
        >>> task = Backcopy(10, length=6, tokens=5, triggers=1)
        >>> task[3]["input_ids"].shape, task[3]["labels"][:2].tolist()
        (torch.Size([7]), [-100, -100])
    """

    def __init__(
        self,
        size: int,
        *,
        length: int = 63,
        tokens: int = 64,
        triggers: int = 4,
        spread: float = 2.0,
        pairs: bool = False,
        chain: int = 0,
        seed: int = 0,
    ):
        if size < 1 or length < 3 or not 0 < triggers < tokens:
            raise MonadnockError(
                f"{size} sequences of {length} of {tokens} tokens with {triggers} triggers were asked; give at least 1 "
                "sequence of 3 tokens, and more tokens than triggers."
            )
        self.size, self.length, self.tokens, self.triggers, self.seed = size, length, tokens, triggers, seed
        self.pairs = pairs
        drawn = torch.randn(tokens, tokens, generator=torch.Generator().manual_seed(chain))
        self.transitions = torch.softmax(spread * drawn, dim=-1)
        self._sums = self.transitions.cumsum(-1)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one sequence: `input_ids` and `labels`, [1 + length]."""
        return self.__getitems__([index])[0]

    def __getitems__(self, places: list[int]) -> list[dict[str, Tensor]]:
        """Return several sequences at once, which takes as long as one."""
        random = torch.stack([self._numbers(place) for place in places])
        chain = torch.empty(len(places), self.length, dtype=torch.long)
        least = 0 if self.pairs else self.triggers
        chain[:, 0] = least + (random[:, 0] * (self.tokens - least)).long()
        for at in range(1, self.length):
            last = chain[:, at - 1]
            drawn = (
                torch.searchsorted(self._sums[last], random[:, at : at + 1].contiguous())
                .flatten()
                .clamp(max=self.tokens - 1)
            )
            copied = chain[:, at - 2] if at > 1 else drawn
            chain[:, at] = torch.where(last < self.triggers, copied, drawn)
        ids = torch.cat([torch.full((len(places), 1), BOS), chain + 1], dim=1)
        labels = ids.clone()
        labels[:, :2] = IGNORED  # labels are shifted: the second is what the prediction at BOS is held against
        return [{"input_ids": one, "labels": other} for one, other in zip(ids, labels, strict=True)]

    def _numbers(self, place: int) -> Tensor:
        """Return the random numbers of one sequence, [length]."""
        generator = torch.Generator().manual_seed(mixed(self.seed, place))
        return torch.rand(self.length, generator=generator)
