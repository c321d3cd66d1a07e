"""CPU tensors that say they lie on a GPU: what mixes them with others fails here as it would there.

CI has no GPU. This finds a tensor left on the CPU, a missing `.cpu()` before numpy and a branch for CUDA that does not
run; it says nothing of kernels, speed or memory.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda:0")
MAY_MIX = {"__getitem__", "__setitem__", "copy_", "to"}
"""An index may lie on the CPU, and a copy goes from one device to another."""
WAITS = {
    *("item", "tolist", "cpu", "numpy", "__array__", "nonzero", "argwhere", "masked_select", "unique", "equal"),
    *("__bool__", "__int__", "__float__", "__index__"),
}
"""What a host cannot know before the device has done its work."""
OF_THE_LEAF = {"__get__", "__set__", "requires_grad_", "backward"}
"""What autograd asks of the tensor itself: a view of it would be no leaf."""


class OnGpu(torch.Tensor):
    """A CPU tensor that says it is on `GPU`."""

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        return GPU

    @property
    def is_cuda(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return True

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _call(func, args, kwargs or {})


class _ClaimedGpu(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        if func is not torch.device and any(
            isinstance(leaf, OnGpu) or _is_gpu(leaf) or getattr(leaf, "on_gpu", False) for leaf in leaves
        ):
            return _call(func, args, kwargs)
        return func(*args, **kwargs)


def _is_gpu(place: object) -> bool:
    return (isinstance(place, str) and place.startswith("cuda")) or (
        isinstance(place, torch.device) and place.type == "cuda"
    )


def _call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = getattr(func, "__name__", str(func))
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    claimed = [t for t in tensors if isinstance(t, OnGpu) or getattr(t, "on_gpu", False)]
    others = [t for t in tensors if t not in _Identities(claimed) and t.dim()]
    if claimed and others and name not in MAY_MIX:
        raise RuntimeError(f"Expected all tensors to be on the same device: {name}, {len(others)} on the CPU")
    if name == "__getitem__" and args[0] in _Identities(others) and claimed:
        raise RuntimeError("indices should be on the CPU, as the indexed tensor is")
    if name in ("numpy", "__array__") and claimed:
        raise TypeError("can't convert cuda:0 device type tensor to numpy: use Tensor.cpu() first")
    with torch._C.DisableTorchFunctionSubclass():
        if name in OF_THE_LEAF:
            found = func(*args, **kwargs)
            return tree_map(_claimed, found) if claimed else found
        given: dict[int, OnGpu] = {}
        cpu_args, cpu_kwargs = tree_map(partial(_as_cpu, given), (args, kwargs))
        found = (_wide_product if "out_dtype" in kwargs else func)(*cpu_args, **cpu_kwargs)
        if not _goes_to_gpu(name, args, kwargs, bool(claimed)):
            return tree_map(lambda leaf: leaf.clone() if id(leaf) in given else leaf, found)
        if name == "to" and not claimed:  # a GPU has memory of its own
            return tree_map(lambda leaf: _claimed(leaf.clone()), found)
        # what is changed in place, or needs no conversion, is the very tensor that was given
        return tree_map(_claimed, tree_map(lambda leaf: given.get(id(leaf), leaf), found))


def _wide_product(a: torch.Tensor, b: torch.Tensor, *, out_dtype: torch.dtype) -> torch.Tensor:
    """`torch.mm` into a wider dtype, which CPUs lack: of widened operands, as a GPU accumulates."""
    return torch.mm(a.to(out_dtype), b.to(out_dtype))


def _goes_to_gpu(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], from_gpu: bool) -> bool:
    if name == "cpu":
        return False
    places = [kwargs.get("device"), *(args[1:] if name == "to" else ())]
    named = [place for place in places if isinstance(place, (str, torch.device))]
    if named:
        return _is_gpu(named[0])
    like = [place for place in places if isinstance(place, torch.Tensor)]
    return isinstance(like[0], OnGpu) if like else from_gpu


class Recording(TorchFunctionMode):
    """While a CUDA graph is recorded: what the host would wait for fails, as does a shape that depends on numbers."""

    def __torch_function__(
        self, func: Callable[..., Any], _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = getattr(func, "__name__", str(func)), kwargs or {}
        by_mask = name in ("__getitem__", "__setitem__") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in tree_leaves(args[1])
        )
        unsized = name == "repeat_interleave" and "output_size" not in kwargs
        if name in WAITS or by_mask or unsized:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        return func(*args, **kwargs)


class _Identities:
    """Membership by identity: `in` compares tensors entry by entry."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        self._ids = {id(tensor) for tensor in tensors}

    def __contains__(self, tensor: object) -> bool:
        return id(tensor) in self._ids


def _as_cpu(given: dict[int, OnGpu], leaf: Any) -> Any:
    if isinstance(leaf, OnGpu):
        plain = leaf.as_subclass(torch.Tensor)
        given[id(plain)] = leaf
        return plain
    return "cpu" if _is_gpu(leaf) else leaf


def _claimed(leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor) or isinstance(leaf, OnGpu):
        return leaf
    if leaf.layout != torch.strided:  # has no strides for a subclass to take over
        leaf.on_gpu = True  # pyright: ignore[reportAttributeAccessIssue]
        return leaf
    return leaf.as_subclass(OnGpu)


def claim(model: torch.nn.Module) -> None:
    """Say of a module's parameters and buffers that they are on the GPU."""
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            claimed = torch.nn.Parameter(weight.detach().as_subclass(OnGpu), requires_grad=weight.requires_grad)
            setattr(module, name, claimed)
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.as_subclass(OnGpu))


@contextmanager
def claimed_gpu() -> Iterator[None]:
    """Every `cuda` of this block is claimed; models load onto it; compute asks for it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from resources.compute import ComputeConfig

    def loading(load: Any) -> Any:
        def load_and_claim(*args: Any, **kwargs: Any) -> Any:
            if "device_map" in kwargs:
                kwargs["device_map"] = {"": "cpu"}
            loaded = load(*args, **kwargs)
            claim(loaded)
            return loaded

        return load_and_claim

    move = torch.nn.Module.to

    def moved(module: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
        if not any(map(_is_gpu, (*args, kwargs.get("device")))):
            return move(module, *args, **kwargs)
        claim(module)
        dtype = next((each for each in (*args, kwargs.get("dtype")) if isinstance(each, torch.dtype)), None)
        return move(module, dtype=dtype) if dtype else module

    properties = type("Properties", (), {"total_memory": 2**33})
    with (
        patch.object(ComputeConfig, "device", "cuda"),
        patch.object(AutoModelForCausalLM, "from_pretrained", loading(AutoModelForCausalLM.from_pretrained)),
        patch.object(PeftModel, "from_pretrained", loading(PeftModel.from_pretrained)),
        patch.object(torch.nn.Module, "to", moved),
        patch.object(torch.cuda, "get_device_properties", lambda _: properties),
        patch.object(torch.cuda, "get_device_name", lambda *_: "NVIDIA H200"),
        patch.object(torch.cuda, "set_device", lambda _: None),
        _ClaimedGpu(),
    ):
        yield
