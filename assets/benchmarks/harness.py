"""lm-eval in this room: it builds the prompts from the task files, and scores answers that were generated elsewhere.

`evaluate` is called with a model that looks its answers up, so that lm-eval's own pipeline (requests, filters,
`process_results`, aggregation) runs on them without generating. Its `simple_evaluate` is not used: it
collects the environment by running a dozen programs after every call.
"""

import io
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from assets.benchmarks.config import TASK_FOLDER
from assets.benchmarks.grade import check_gold
from resources.errors import BadInput, one_line, quoted

if TYPE_CHECKING:
    from lm_eval.api.task import Task

MATH, CHOICE = "math_results", "choice_results"
"""The graders, by the names that a task file gives to `process_results`."""
Render = Callable[..., str]
"""A chat template: (messages, add_generation_prompt) -> text."""


@dataclass(frozen=True)
class Question:
    """One question of a benchmark, as the model sees it."""

    id: str
    prompt: str
    gold: str
    choices: tuple[str, ...]
    """Texts behind A to D in the order shown; empty where the task has none of its own."""


@dataclass(frozen=True)
class Benchmark:
    """One task of lm-eval with its questions."""

    name: str
    task: "Task"
    multiple_choice: bool
    questions: tuple[Question, ...]


def load_benchmark(name: str, render: Render, *, limit: int | None, samples: int, seed: int) -> Benchmark:
    """The task file `name` with its data, prompts rendered by the chat template.

    Raises:
        BadInput: when its questions cannot be had (no network, no access, no such file) or graded.
    """
    with quiet(), _explained(name):
        manager = TaskManager(include_path=TASK_FOLDER, include_defaults=False, metadata={"seed": seed})  # pyright: ignore[reportArgumentType]
        task = manager.load([name])["tasks"][name]
        grader = _grader(task)
        task.set_config("repeats", samples)
        task.build_all_requests(limit=limit, apply_chat_template=True, chat_template=render)
        questions = tuple(_question(task, number, instance) for number, instance in enumerate(task.instances))
        _check_ids(questions)
        if grader == CHOICE:
            _check_golds(questions)
    return Benchmark(name, task, grader == CHOICE, questions)


def _grader(task: "Task") -> str:
    """Name of the function that grades.

    Records are graded by ours, and lm-eval must come to the same score, with every sample kept.
    """
    grader = getattr(task.get_config("process_results"), "__name__", "")
    graded = grader in (MATH, CHOICE)
    filtered = "samples" in [one["name"] for one in task.get_config("filter_list") or ()]
    if not graded or not filtered:
        ours = f"`process_results: !function assets.benchmarks.documents.{MATH}` (or {CHOICE})"
        lacking = [*(() if graded else (ours,)), *(() if filtered else ("a filter called `samples`",))]
        raise BadInput(f"its task file lacks {' and '.join(lacking)}: docs/how-to/own.md shows one that has them")
    return grader


def _question(task: "Task", number: int, instance: Instance) -> Question:
    document = instance.doc
    for column in ("question_id", "answer"):
        if not isinstance(document.get(column), str) or not document[column].strip():
            raise BadInput(
                f"question {number} has no text under {column} (its columns are {', '.join(document)}): load it as "
                "docs/how-to/own.md shows"
            )
    asked = str(task.doc_to_text(document))
    if not asked.strip():
        raise BadInput(f"question {number} is empty: fill it or leave it out")
    if asked == task.get_config("doc_to_text"):
        raise BadInput(
            f"question {number} asks {quoted(asked)}, which is no column (its columns are {', '.join(document)}): name "
            "one of them in doc_to_text"
        )
    return Question(document["question_id"], instance.args[0], document["answer"], tuple(document.get("choices") or ()))


def _check_ids(questions: Sequence[Question]) -> None:
    ids: set[str] = set()
    for question in questions:
        if question.id in ids:
            raise BadInput(
                f"two questions have the question_id {quoted(question.id)}: their answers would count as one"
            )
        ids.add(question.id)


def _check_golds(questions: Sequence[Question]) -> None:
    for number, question in enumerate(questions):
        try:
            check_gold(question.gold, question.choices)
        except BadInput as error:
            raise BadInput(f"question {number}: {error}") from error


class Answers(LM):
    """A model for lm-eval whose answers are already there.

    The two likelihood methods are abstract in lm-eval 0.4.13: without them no object can be made. No task calls them.
    """

    def __init__(self, render: Render, answers: dict[tuple[str, int], Sequence[str]]) -> None:
        """`answers`: texts by (task, question number), one per sample."""
        super().__init__()
        self._render = render
        self._answers = answers

    @property
    def tokenizer_name(self) -> str:
        """Names lm-eval's request cache, which is off."""
        return ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The prompt as `load_benchmark` rendered it."""
        return self._render(chat_history, add_generation_prompt=add_generation_prompt)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Look up; lm-eval repeats a request once per sample."""
        taken: dict[tuple[str, int], int] = {}
        texts: list[str] = []
        for request in requests:
            where = (str(request.task_name), int(request.doc_id or 0))
            sample = taken.get(where, 0)
            taken[where] = sample + 1
            texts.append(self._answers[where][sample])
        return texts

    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        """Not needed: all tasks generate."""
        raise NotImplementedError("the tasks of this room generate text")

    def loglikelihood_rolling(self, requests: list[Instance]) -> NoReturn:
        """Not needed: all tasks generate."""
        raise NotImplementedError("the tasks of this room generate text")


def evaluate_answers(
    benchmarks: Sequence[Benchmark], render: Render, answers: dict[tuple[str, int], Sequence[str]], limit: int | None
) -> dict[str, Any]:
    """lm-eval's results of one arm, by task."""
    tasks = {"tasks": {benchmark.name: benchmark.task for benchmark in benchmarks}}
    with quiet():
        result = evaluate(
            Answers(render, answers),
            tasks,  # pyright: ignore[reportArgumentType]
            limit=limit,
            bootstrap_iters=0,
            log_samples=False,
            apply_chat_template=True,
        )
    assert result is not None
    return json.loads(json.dumps(result["results"], default=str))  # pyright: ignore[reportTypedDictNotRequiredAccess]


@contextmanager
def quiet() -> Iterator[None]:
    """Without lm-eval's progress bars and notices, which would fill the run log."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Say how to get questions that cannot be loaded."""
    from datasets.exceptions import DatasetNotFoundError
    from jinja2 import TemplateError

    try:
        yield
    except DatasetNotFoundError as error:
        if "gated" in str(error):
            raise BadInput(
                f"{name}: {error.args[0].splitlines()[0]} Accept its terms on its page at huggingface.co, then log in "
                "with `hf auth login` (or set HF_TOKEN) and run again"
            ) from error
        raise BadInput(f"{name}: its questions are not at the hub: {error}") from error
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from error
    except (LookupError, TemplateError) as error:
        raise BadInput(
            f"{name}: its questions and its task file do not fit together ({type(error).__name__}: "
            f"{one_line(str(error))}); docs/how-to/own.md shows a pair that does"
        ) from error
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else "no reason given"
        raise BadInput(
            f"{name}: its questions cannot be loaded ({type(error).__name__}: {reason}); "
            "load them once on a machine with network, or take it out of benchmarks.tasks"
        ) from error
