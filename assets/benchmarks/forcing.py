"""Budget forcing: think longer by refusing to stop, or stop thinking from outside (s1, section 3 and README).

Thinking ends where the model writes a control token. `wait_times` such ends are replaced by "Wait"; when
`max_thinking_tokens` are used up, or the last end has come, the answer is asked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from assets.benchmarks.engine import Arm, Completion, Engine, Request
from resources.chat import ANSWER, END_TOKENS, START, THINK

WAIT = "Wait"
OUT_OF_TOKENS = "Final Answer:"
"""What s1 puts at the head of an answer whose thinking was cut, so that it does not go on thinking."""


@dataclass(frozen=True)
class Budget:
    """How thinking is forced."""

    max_thinking_tokens: int | None
    wait_times: int


def inserted(budget: Budget) -> list[str]:
    """Everything that may be put into one answer, piece by piece."""
    return [THINK, *[WAIT] * budget.wait_times, "\n", ANSWER, OUT_OF_TOKENS]


@dataclass
class _Thought:
    """One request's thinking so far."""

    request: Request
    text: str = THINK
    used: int = 0
    waits: int = 0
    cut: bool = False
    closed: bool = False

    def limit(self, budget: Budget) -> int:
        """Tokens left for thinking; one is kept for the answer."""
        most = self.request.max_tokens - 1
        return (most if budget.max_thinking_tokens is None else min(most, budget.max_thinking_tokens)) - self.used

    def step(self, budget: Budget) -> Request:
        return replace(
            self.request,
            prompt=self.request.prompt + self.text,
            max_tokens=self.limit(budget),
            stop=(START, *END_TOKENS),
        )

    def take(self, piece: Completion, budget: Budget) -> None:
        self.text += piece.text
        self.used += piece.num_tokens
        self.cut = piece.finish == "length"
        self.closed = self.cut or self.waits == budget.wait_times or self.limit(budget) < 1
        if not self.closed:
            self.text += WAIT
            self.waits += 1

    def answer(self) -> Request:
        self.text += ("" if self.text.endswith("\n") else "\n") + ANSWER + (OUT_OF_TOKENS if self.cut else "")
        return replace(
            self.request, prompt=self.request.prompt + self.text, max_tokens=self.request.max_tokens - self.used
        )


@dataclass(frozen=True)
class ForcingEngine:
    """Another engine, with thinking forced; `num_tokens` counts what the model itself generated."""

    engine: Engine
    budget: Budget

    @property
    def interleaves(self) -> bool:
        """As the other engine."""
        return self.engine.interleaves

    def complete(self, arm: Arm, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """Answers once all thinking has ended."""
        thoughts = [_Thought(request) for request in requests]
        while open_ones := [thought for thought in thoughts if not thought.closed]:
            for index, piece in self.engine.complete(arm, [thought.step(self.budget) for thought in open_ones]):
                open_ones[index].take(piece, self.budget)
        for index, piece in self.engine.complete(arm, [thought.answer() for thought in thoughts]):
            thought = thoughts[index]
            yield index, Completion(thought.text + piece.text, thought.used + piece.num_tokens, piece.finish)
