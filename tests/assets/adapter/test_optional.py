"""What the kernels of a GPU's training ask for, beside a GPU."""

import shutil
import sysconfig
from pathlib import Path

import pytest

from assets.adapter import optional
from assets.adapter.optional import is_usable, missing_for_kernels


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine that has everything; what was found out of another one is forgotten, before and after."""
    (tmp_path / "include").mkdir()
    (tmp_path / "include/Python.h").touch()
    monkeypatch.setattr(optional, "find_spec", lambda _: object())
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / name))
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.delenv("CC", raising=False)
    for found in (is_usable, missing_for_kernels):
        monkeypatch.setattr(optional, found.__name__, found.__wrapped__)
    return tmp_path


def test_a_machine_with_triton_a_compiler_and_pythons_headers_lacks_nothing() -> None:
    assert optional.missing_for_kernels() is None
    assert optional.is_usable("liger_kernel")


def test_without_triton_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional, "find_spec", lambda package: None if package == "triton" else object())
    assert optional.missing_for_kernels() == "triton is not installed"
    assert not optional.is_usable("liger_kernel")


def test_a_package_that_is_not_there_is_not_usable_though_triton_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional, "find_spec", lambda package: None if package == "liger_kernel" else object())
    assert not optional.is_usable("liger_kernel")
    assert optional.is_usable("triton")


@pytest.mark.parametrize(("compiler", "lacks"), [("gcc", False), ("clang", False), ("tcc", True)])
def test_one_compiler_of_two_is_enough(compiler: str, lacks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: program if program == compiler else None)
    assert ("no C compiler" in (optional.missing_for_kernels() or "")) == lacks
    monkeypatch.setenv("CC", "tcc")
    assert optional.missing_for_kernels() is None


def test_without_pythons_headers_it_says_which_package_brings_them(here: Path) -> None:
    (here / "include/Python.h").unlink()
    assert "python3-dev" in (optional.missing_for_kernels() or "")
    assert not optional.is_usable("triton")
