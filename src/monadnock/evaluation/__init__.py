"""How a model does: predictions, the chain to the sinks, greedy text, tasks; of the clean model or inside an attack."""

from monadnock.evaluation.chain import Chain, follow_chain
from monadnock.evaluation.generation import generate
from monadnock.evaluation.likelihood import Likelihood, last_output, perplexity, score
from monadnock.evaluation.tasks import Score, Tasks

__all__ = ["Chain", "Likelihood", "Score", "Tasks", "follow_chain", "generate", "last_output", "perplexity", "score"]
