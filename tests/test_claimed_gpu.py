"""The claimed GPU (tests/claimed_gpu.py) refuses what a GPU refuses, and computes what a CPU computes."""

import pytest
import torch

from tests.claimed_gpu import Recording, claimed_gpu


def test_a_tensor_left_on_the_cpu_is_found() -> None:
    with claimed_gpu():
        there = torch.ones(3, device="cuda")
        assert there.is_cuda
        assert (there * 2).is_cuda
        assert there.float() is there
        for mixed in (lambda: there + torch.ones(3), lambda: torch.stack([there, torch.ones(3)])):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        with pytest.raises(RuntimeError, match="indices should be on the CPU"):
            torch.ones(3)[there.long()]


def test_numpy_wants_a_copy_on_the_cpu() -> None:
    with claimed_gpu():
        there = torch.arange(3, device="cuda:0")
        with pytest.raises(TypeError, match="to numpy"):
            there.numpy()
        assert there.cpu().numpy().tolist() == [0, 1, 2]
        here = there.to("cpu")
        here[0] = 7
        assert not here.is_cuda
        assert there.tolist() == [0, 1, 2]


def test_numbers_in_place_changes_and_gradients_are_those_of_a_cpu() -> None:
    with claimed_gpu():
        weight = torch.tensor([1.0, 2.0], device="cuda").requires_grad_()
        (weight * torch.tensor([3.0, 4.0], device="cuda")).sum().backward()
        assert weight.grad is not None
        assert weight.grad.is_cuda
        assert weight.grad.tolist() == [3.0, 4.0]
        filled = torch.zeros(2, device="cuda")
        filled += 1
        filled.mul_(5)
        torch.add(filled, 1, out=filled)
        assert filled.tolist() == [6.0, 6.0]


def test_a_recording_refuses_what_the_host_would_wait_for() -> None:
    with claimed_gpu():
        there = torch.ones(3, device="cuda")
        with Recording():
            assert torch.where(there > 0, there, 0.0).is_cuda
            for waiting in (
                there[0].item,
                there.cpu,
                lambda: int(there[0]),
                lambda: bool(there[0] > 0),
                lambda: there[there > 0],
                lambda: torch.nonzero(there),
                lambda: there.repeat_interleave(there.int()),
            ):
                with pytest.raises(RuntimeError, match="stream is capturing"):
                    waiting()
