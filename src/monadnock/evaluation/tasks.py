"""Zero-shot tasks through EleutherAI's lm-eval, with the BOS token under control and nothing left changed."""

import difflib
import functools
import hashlib
import numbers
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monadnock.errors import MonadnockError, nearest
from monadnock.evaluation.harness import SEED, language_model, undisturbed
from monadnock.models.adapter import Adapter

DEFAULT_TASKS = ("arc_easy", "arc_challenge", "boolq", "piqa", "winogrande")

_RESAMPLES = 100  # for metrics that are no mean (F1, perplexity): their error is then itself known to 7 %


@dataclass(frozen=True)
class Score:
    """One metric of one task or group.

    Attributes:
        task: lm-eval's name, such as `arc_easy`.
        metric: `acc`, `acc_norm`, ...; `metric,filter` where the task filters answers.
        value: as lm-eval defines the metric; accuracies are from 0 to 1.
        error: standard error, in the same unit; None where lm-eval gives none.
    """

    task: str
    metric: str
    value: float
    error: float | None


class Tasks:
    """Tasks that can be run on a model again and again: their data is loaded once.

    The number of examples in the prompt is the task's own, by default none. A task file is lm-eval's YAML; its
    `!function` and `class` entries, and those of files that it includes, run Python code when it is loaded, so name
    only files that you trust. Other files beside it are not read.

    Attributes:
        names: the names asked for; for a task file the name in it.
        limit: how many documents of each task are used, the first ones; None for all.
        context: how many tokens a prompt and its answer may have; None for as many as the model sees.
        digest: SHA-256 of the task files and the documents: an edited file, or other data, is another task.

    Args:
        names: names of lm-eval tasks, groups or tags, or paths that end in .yaml or .yml.
        limit: use only the first so many documents of each task.
        context: tokens that a prompt and its answer may have together; by default as many as the model sees.

    Raises:
        MonadnockError: if lm-eval is missing, a name is unknown, a task file cannot be used, data cannot be had, or a
            task needs more than text or runs code that the model writes.

    Example:
        >>> tasks = Tasks(["arc_easy", "my_task.yaml"], limit=200)  # doctest: +SKIP
        >>> tasks.run(adapter)[0]  # doctest: +SKIP
        Score(task='arc_easy', metric='acc', value=0.545, error=0.0352...)
    """

    def __init__(
        self, names: Sequence[str | Path] = DEFAULT_TASKS, *, limit: int | None = None, context: int | None = None
    ):
        asked = [str(name) for name in ([names] if isinstance(names, str | Path) else names)]
        if not asked or (limit is not None and limit < 1):
            what = f"A limit of {limit} documents" if asked else "No task"
            raise MonadnockError(f"{what} was asked; name at least one task, and give no limit or one of at least 1.")
        if context is not None and context < 2:
            raise MonadnockError(f"A context of {context} tokens was asked; give at least 2.")
        self.limit, self.context = limit, context
        self._tasks: dict[str, Any] = {}
        self._groups: dict[str, Any] = {}
        with undisturbed():
            manager = _manager(bare=all(_is_file(name) for name in asked))
            for name in asked:
                if _is_file(name):
                    _check_task_file(name)
                elif name not in manager.task_index:
                    close = difflib.get_close_matches(name, manager.all_tasks)
                    hint = nearest(name, close) if close else "`lm-eval ls tasks` lists the known ones."
                    raise MonadnockError(f"lm-eval has no task {name}: {hint}")
            self.names = tuple(self._load(manager, name) for name in asked)
            self.digest = self._digest([Path(name).read_bytes() for name in asked if _is_file(name)])

    @property
    def label(self) -> str:
        """What is run in words, with the first digits of the digest."""
        limit = "" if self.limit is None else f", limit {self.limit}"
        context = "" if self.context is None else f", context {self.context}"
        return f"lm-eval{limit}{context}, {self.digest[:8]}"

    def _digest(self, files: list[bytes]) -> str:
        digest = hashlib.sha256(b"".join(files))
        for name, task in sorted(self._tasks.items()):
            digest.update(name.encode())
            for number, document in enumerate(task.eval_docs):
                if number == self.limit:
                    break
                digest.update(repr(document).encode())
        return digest.hexdigest()

    def _load(self, manager: Any, name: str) -> str:
        try:
            loaded = manager.load(name)
        except Exception as error:  # data sets and task files fail in many ways; each means that there is no task
            reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
            raise MonadnockError(
                f"Task {name} and its data could not be loaded ({reason}); data comes from the Hugging Face hub, from "
                "what was downloaded before, or from the files that a task file names."
            ) from error
        for task_name, task in loaded["tasks"].items():
            if task_name in self._tasks:
                raise MonadnockError(f"Task {task_name} was asked twice, the second time as {name}; name it once.")
            for flag, does in (
                ("UNSAFE_CODE", "runs code that the model writes"),
                ("MULTIMODAL", "needs more than text"),
            ):
                if getattr(task, flag, False):
                    raise MonadnockError(f"Task {task_name} {does}, which monadnock does not do; leave it out.")
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
        self._tasks |= loaded["tasks"]
        self._groups |= loaded["groups"]
        return next(iter(loaded["tasks"])) if _is_file(name) else name

    def run(self, adapter: Adapter, *, bos: bool | None = None) -> list[Score]:
        """Run every task on a model as it is now; nothing is kept from earlier runs.

        Model and tokenizer come back as they were. Log-likelihoods are in the model's own dtype, as lm-eval computes
        them. A prompt that is longer than the context loses tokens: those behind BOS where text is generated, those in
        front, BOS included, where choices are compared, which lm-eval cuts itself.

        Args:
            adapter: the model, with its tokenizer.
            bos: put the BOS token in front of every prompt; by default if the tokenizer has one. Without it, the EOS
                token stands in front of an empty prompt.

        Returns:
            One `Score` for each metric of each task, subtasks of groups included, then those of the groups.

        Raises:
            MonadnockError: if there is no tokenizer, or `bos` is asked and it has none.
        """
        if adapter.tokenizer is None:
            raise MonadnockError(f"{adapter.source.id} was given without its tokenizer; make the Adapter with one.")
        if bos and adapter.tokenizer.bos_token_id is None:
            raise MonadnockError("A BOS token was asked, but this tokenizer has none; use bos=False.")
        bos = adapter.tokenizer.bos_token_id is not None if bos is None else bos
        longest = adapter.context_length
        if self.context is not None and longest is not None and self.context > longest:
            raise MonadnockError(
                f"A context of {self.context} tokens was asked, but {adapter.source.id} sees at most {longest}."
            )
        with undisturbed(), language_model(adapter, bos, self.context) as model:
            import lm_eval

            for task in self._tasks.values():
                task.set_fewshot_seed(SEED)  # the same examples in every run
            results = lm_eval.evaluate(
                lm=model,
                task_dict={"tasks": self._tasks, "groups": self._groups},
                limit=self.limit,
                bootstrap_iters=_RESAMPLES,
                log_samples=False,
            )
        return [score for task, metrics in results["results"].items() for score in _scores(task, metrics)]


def _scores(task: str, metrics: dict[str, Any]) -> Iterator[Score]:
    for key, value in metrics.items():
        metric, comma, filtered = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, numbers.Real):
            continue
        error = metrics.get(f"{metric}_stderr,{filtered}")
        error = float(error) if isinstance(error, numbers.Real) else None
        yield Score(task, metric if filtered == "none" else key, float(value), error)


@functools.cache
def _manager(bare: bool) -> Any:
    """Return lm-eval's index of its tasks, which takes 10 s to build; an empty one if `bare`."""
    try:
        import lm_eval.models.huggingface  # noqa: F401
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise MonadnockError("Tasks need an extra: pip install -e '.[eval]' in the clone.") from error
    return TaskManager(include_defaults=not bare)


def _is_file(name: str) -> bool:
    return Path(name).suffix in (".yaml", ".yml")


def _check_task_file(name: str) -> None:
    """Refuse a file that is no task, without running what it names."""
    import yaml

    class Plain(yaml.SafeLoader):
        pass

    Plain.add_multi_constructor("!", lambda loader, suffix, node: suffix)
    try:
        content = yaml.load(Path(name).read_text(encoding="utf-8"), Plain)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or "it is not YAML"
        raise MonadnockError(f"Task file {name} cannot be read ({reason}); give a task file of lm-eval.") from error
    keys = content.keys() if isinstance(content, dict) else set()
    if "group" in keys or not keys & {"task", "include"}:  # of a group, lm-eval 0.4.13 takes the name only
        found = "is a group" if "group" in keys else "is no task: it has no `task:` name"
        raise MonadnockError(f"Task file {name} {found}; give lm-eval files of single tasks.")
