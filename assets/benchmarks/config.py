"""Knobs of the benchmarks room and the stage that scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from assets.benchmarks.own_tasks import task_repositories, task_sources
from resources.llm.endpoint import Provider
from resources.section import Address, Section, check_address
from resources.stage import Needs, Stage

TASK_FOLDER = Path(__file__).parent / "tasks"
"""One lm-eval YAML per benchmark; its name is the task's name."""
ArmName = Literal["base", "lora", "full_finetune", "attention_ablated", "mlp_ablated"]
"""Arms of the paper's Tables 1 and 2."""
ARMS: tuple[ArmName, ...] = get_args(ArmName)

STAND_INS = {
    "mini_hard": "aime24_nofigures",
    "mini_medium": "openai_math",
    "mini_choice": "gpqa_diamond_openai",
}
"""Each benchmark of the mini world -> the paper's that it stands in for: printed beside it, never compared with it."""
RECOVERED = {"aime24_nofigures": 0.7273, "openai_math": 0.8636, "gpqa_diamond_openai": 0.8990}
"""Share of the full finetune's gain that the LoRA keeps, as printed in Table 1 (GPQA from rounded scores: 0.9000)."""
SHIPPED = (*STAND_INS, *STAND_INS.values(), "aime25_nofigures")
"""Benchmarks of the project, whose files the code version stands for; any other is the user's own."""


def task_names() -> tuple[str, ...]:
    """Every benchmark that has a task file."""
    return tuple(sorted(path.stem for path in TASK_FOLDER.glob("*.yaml")))


def arm_title(name: str) -> str:
    """How tables and charts call an arm."""
    return {"lora": "LoRA", "mlp_ablated": "MLP ablated"}.get(name, name.replace("_", " "))


class BenchmarksConfig(Section):
    """The `benchmarks` section."""

    tasks: tuple[str, ...] = Field(default=("aime24_nofigures", "openai_math", "gpqa_diamond_openai"), min_length=1)
    """Benchmarks by the name of their file in assets/benchmarks/tasks (paper: these three)."""
    arms: tuple[ArmName, ...] = Field(default=ARMS, min_length=1)
    """Which models answer (paper: all five)."""
    adapters: tuple[str, ...] = ()
    """Further arms as `name=folder` of a PEFT adapter for the same base model."""
    limit: int | None = Field(default=None, ge=1)
    """Questions asked of each benchmark, from its beginning; null: all (paper)."""
    backend: Literal["hf", "vllm", "server"] = "vllm"
    """Who generates: transformers, a vLLM engine, or an OpenAI-compatible server (s1: vLLM)."""
    batch_size: int = Field(default=64, ge=1, le=4096)
    """Questions that the `hf` back end answers side by side."""
    shard_size: int = Field(default=64, ge=1)
    """Questions per cached shard: what a killed run may have to do again."""
    context: int = Field(default=32768, ge=2)
    """Most tokens of prompt and answer together (s1: vLLM with 32768)."""
    max_gen_toks: int | None = Field(default=None, ge=1)
    """Most tokens of an answer; null: up to the end of the context (s1 asks for 32768, which vLLM cuts there)."""
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    """Sampling temperature; 0: greedy (s1)."""
    samples: int = Field(default=1, ge=1, le=64)
    """Answers per question (s1: 1); scores become avg@k with question-clustered errors."""
    seed: int = Field(default=0, ge=0)
    """Seed of choice orders and sampling (s1: random seed 0)."""
    max_thinking_tokens: int | None = Field(default=None, ge=1)
    """Budget forcing: tokens after which the thinking is ended from outside; null: off (s1, section 3)."""
    wait_times: int = Field(default=0, ge=0, le=16)
    """Budget forcing: how often an end of thinking is replaced by `Wait` (s1, section 3); 0: off."""
    tensor_parallel_size: int = Field(default=8, ge=1, le=64)
    """GPUs per vLLM engine (s1: 8)."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0.0, le=1.0)
    """Share of each GPU's memory that a vLLM engine takes."""
    server_url: Address | None = None
    """Base URL of the OpenAI-compatible server, such as http://127.0.0.1:8000/v1; `{arm}` stands for the arm.

    The server must offer one model per arm under the arm's name.
    """
    server_requests: int = Field(default=64, ge=1, le=4096)
    """Requests that are under way at the server at one time."""
    judge: str = ""
    """Model that judges what math-verify rejects and reads what names no letter (s1: gpt-4o-mini); empty: off."""
    judge_provider: Provider = "openai"
    """Who serves the judge (s1: OpenAI). What it may cost is compute.llm_run_dollars."""
    judge_url: Address = ""
    """Address of an `openai-compatible` judge; empty: the vendor's own."""

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        for task in tasks:
            if task not in task_names():
                raise ValueError(f"there is no benchmark '{task}': use {', '.join(task_names())}")
        _unique("tasks", tasks)
        return tasks

    @field_validator("arms")
    @classmethod
    def _distinct(cls, arms: tuple[ArmName, ...]) -> tuple[ArmName, ...]:
        _unique("arms", arms)
        return arms

    @field_validator("adapters")
    @classmethod
    def _named(cls, adapters: tuple[str, ...]) -> tuple[str, ...]:
        for adapter in adapters:
            name, _, folder = adapter.partition("=")
            if not name.isidentifier() or not folder:
                raise ValueError(f"'{adapter}' names no adapter: write name=folder, such as early=adapters/step-100")
            if name in ARMS:
                raise ValueError(f"'{name}' is the name of an arm: call the adapter something else")
        _unique("adapters", [adapter.partition("=")[0] for adapter in adapters])
        return adapters

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_gen_toks is not None and self.max_gen_toks >= self.context:
            raise ValueError(f"max_gen_toks {self.max_gen_toks} leaves no room for a prompt in {self.context} tokens")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples > 1 with temperature 0 gives the same answer again: set a temperature")
        if self.backend == "server" and not self.server_url:
            raise ValueError("backend 'server' needs server_url, such as http://127.0.0.1:8000/v1")
        if self.judge:
            check_address(self.judge_provider, self.judge_url, "judge_url")
        return self

    @property
    def extra_adapters(self) -> dict[str, str]:
        """Name -> folder of the further arms."""
        return {name: folder for name, _, folder in (adapter.partition("=") for adapter in self.adapters)}

    @property
    def forces_budget(self) -> bool:
        """Whether thinking is cut or prolonged from outside."""
        return self.max_thinking_tokens is not None or self.wait_times > 0

    def sources(self) -> tuple[str, ...]:
        """Folders of further adapters and of the mini world's questions, and the files of the user's own benchmarks."""
        mini = (f"resources/mini_world/data/{task.removeprefix('mini_')}" for task in self.tasks if task in STAND_INS)
        own = (
            name for task in self.tasks if task not in SHIPPED for name in task_sources(TASK_FOLDER / f"{task}.yaml")
        )
        return (*self.extra_adapters.values(), *mini, *own)

    def repositories(self) -> tuple[tuple[str, str], ...]:
        """Data sets of the hub that the questions come from, each with its commit or branch."""
        return tuple(one for task in self.tasks for one in task_repositories(TASK_FOLDER / f"{task}.yaml"))

    def own_tasks(self) -> tuple[str, ...]:
        """Benchmarks of the user's own whose questions lie on this machine."""
        own = (task for task in self.tasks if task not in SHIPPED)
        return tuple(task for task in own if not task_repositories(TASK_FOLDER / f"{task}.yaml"))

    def vendors(self) -> tuple[str, ...]:
        """Who judges, where somebody does."""
        return (self.judge_provider,) if self.judge else ()


def _unique(what: str, names: Sequence[str]) -> None:
    twice = {name for name in names if list(names).count(name) > 1}
    if twice:
        raise ValueError(f"{what} names {', '.join(sorted(twice))} twice")


BENCHMARK_SCORES = Stage(
    asset="benchmark_scores",
    room="benchmarks",
    code_version=13,
    call="assets.benchmarks.score:score",
    artifact="assets.benchmarks.artifact:BenchmarkScores",
    sections=("model", "benchmarks"),
    inputs=("lora_checkpoint", "full_finetune_checkpoint"),
    needs=Needs(
        gpus=8,
        parallel=True,
        minutes=240,
        idle_when="assets.benchmarks.memory:asks_server",
        memory_model="assets.benchmarks.memory:generation",
        time_model="assets.benchmarks.estimate:benchmark_hours",
    ),
)
