"""Budget forcing with a scripted back end: what is asked, in which order, and what is counted."""

from collections.abc import Iterator, Sequence

from assets.benchmarks.engine import Arm, Completion, Request, up_to
from assets.benchmarks.forcing import Budget, ForcingEngine

ARM = Arm("base", "model", None, "v")


class Scripted:
    """Answers from a list and remembers the requests."""

    interleaves = False

    def __init__(self, *pieces: Completion) -> None:
        self.pieces = list(pieces)
        self.asked: list[Request] = []

    def complete(self, arm: Arm, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        assert arm is ARM
        for index, request in enumerate(requests):
            self.asked.append(request)
            yield index, self.pieces.pop(0)


def ask(engine: Scripted, budget: Budget, num_requests: int = 1) -> list[tuple[int, Completion]]:
    request = Request("Q:", 100, ("<|im_end|>",), 0.0, 0)
    return list(ForcingEngine(engine, budget).complete(ARM, [request] * num_requests))


def test_two_ends_of_thinking_are_replaced_by_wait() -> None:
    engine = Scripted(
        Completion("first\n", 10, "stop"),
        Completion(" second\n", 5, "stop"),
        Completion(" third\n", 5, "stop"),
        Completion("Answer: 7", 3, "stop"),
    )
    ((index, answer),) = ask(engine, Budget(None, 2))
    assert index == 0
    assert answer.text == "<|im_start|>think\nfirst\nWait second\nWait third\n<|im_start|>answer\nAnswer: 7"
    assert (answer.num_tokens, answer.finish) == (23, "stop")
    assert [request.max_tokens for request in engine.asked] == [99, 89, 84, 80]
    assert engine.asked[0].prompt == "Q:<|im_start|>think\n"
    assert engine.asked[0].stop == ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    assert engine.asked[3].stop == ("<|im_end|>",)


def test_thinking_is_cut_at_its_budget_and_the_answer_is_asked_for() -> None:
    engine = Scripted(Completion("on and on", 20, "length"), Completion(" 7", 2, "stop"))
    ((_, answer),) = ask(engine, Budget(20, 0))
    assert engine.asked[0].max_tokens == 20
    assert engine.asked[1].max_tokens == 80
    assert answer.text == "<|im_start|>think\non and on\n<|im_start|>answer\nFinal Answer: 7"


def test_waits_end_with_the_budget() -> None:
    engine = Scripted(Completion("a", 20, "stop"), Completion(" 7", 2, "stop"))
    ((_, answer),) = ask(engine, Budget(20, 5))
    assert answer.text == "<|im_start|>think\na\n<|im_start|>answer\n 7"


def test_each_request_waits_on_its_own() -> None:
    engine = Scripted(
        Completion("a", 1, "stop"),
        Completion("b", 20, "length"),
        Completion("c", 1, "stop"),
        Completion("1", 1, "stop"),
        Completion("2", 1, "length"),
    )
    answers = dict(ask(engine, Budget(20, 1), 2))
    assert answers[0].text == "<|im_start|>think\naWaitc\n<|im_start|>answer\n1"
    assert answers[1].text == "<|im_start|>think\nb\n<|im_start|>answer\nFinal Answer:2"
    assert answers[1].finish == "length"


def test_up_to_cuts_at_the_first_of_several_stops() -> None:
    assert up_to("a<|im_end|>b<|im_start|>c", ("<|im_start|>", "<|im_end|>")) == "a"
    assert up_to("a.b", ("|",)) == "a.b"
    assert up_to("abc", ()) == "abc"
