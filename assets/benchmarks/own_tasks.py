"""What a benchmark is made of: its task file, and the local files or the repositories of the hub that this names.

lm-eval's reader would say it too, but imports every function, and takes seconds to be imported itself.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from resources.errors import BadInput, one_line, quoted
from resources.sources import PROJECT, FileName, local_folder

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_WILD = re.compile(r"[*?\[{]")


class _Function(str):
    """What stands behind `!function`: `module.name`."""

    __slots__ = ()


class _Loader(yaml.SafeLoader):
    """Takes a `!function` for text."""


_Loader.add_constructor("!function", lambda _, node: _Function(node.value))


def task_sources(task_file: Path) -> tuple[str, ...]:
    """The task file, those that it includes, the modules beside them that they call, and their local data.

    Raises:
        BadInput: when one of the task files cannot be read, or names data that are not there.
    """
    names = [
        name
        for file, values in _files(task_file).items()
        for name in (_named(file), *_modules(file, values), *_data(file, values))
    ]
    return tuple(dict.fromkeys(names))


def task_repositories(task_file: Path) -> tuple[tuple[str, str], ...]:
    """Data sets of the hub that the questions come from, each with its commit or branch.

    Raises:
        BadInput: when one of the task files cannot be read.
    """
    read = _files(task_file).values()
    keywords = [found if isinstance(found := values.get("dataset_kwargs"), dict) else {} for values in read]
    named = [(values.get("dataset_path"), found) for values, found in zip(read, keywords, strict=True)]
    named += [(found.get("path"), found) for found in keywords]
    hub = (
        (name, str(found.get("revision") or "main"))
        for given, found in named
        for name in _texts(given)
        if _REPOSITORY.fullmatch(name) and local_folder(name) is None
    )
    return tuple(dict.fromkeys(hub))


def _files(task_file: Path) -> dict[Path, dict[str, Any]]:
    """What it and those that it includes say."""
    read: dict[Path, dict[str, Any]] = {}
    _read(task_file.resolve(), read)
    return read


def _read(file: Path, read: dict[Path, dict[str, Any]]) -> None:
    if file in read:
        return
    read[file] = _parsed(file)
    for include in _texts(read[file].get("include")):
        _read((file.parent / include).resolve(), read)


def _parsed(file: Path) -> dict[str, Any]:
    try:
        found = file.stat()
        values = _values(file, found.st_ctime_ns, found.st_size)
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{file}: not YAML: {one_line(str(error))}") from error
    if not isinstance(values, dict):
        raise BadInput(f"{file}: expected a task of lm-eval, `key: value` lines")
    return values


@lru_cache(maxsize=64)
def _values(file: Path, changed: int, size: int) -> Any:
    """Parsed once per state of the file: a thousand experiments may name one task."""
    del changed, size
    return _Loader(file.read_bytes()).get_single_data()


def _modules(file: Path, values: dict[str, Any]) -> Iterator[FileName]:
    """lm-eval looks beside the task file before it looks among the installed modules."""
    for text in _texts(values):
        module = file.parent / f"{text.rpartition('.')[0].replace('.', '/')}.py"
        if isinstance(text, _Function) and module.is_file():
            yield _named(module)


def _data(file: Path, values: dict[str, Any]) -> Iterator[str]:
    for text in _texts([values.get("dataset_path"), values.get("dataset_kwargs")]):
        yield from _local(file, text)


def _local(file: Path, text: str) -> Iterator[str]:
    """The folder or the file that a text names, if it names one; of a pattern such as `data/*.json`, the folder."""
    wild = _WILD.search(text)
    name = text[: wild.start()].rpartition("/")[0] if wild else text
    if not name.strip("./"):
        return
    try:
        found = [one for one in (name, FileName(name)) if local_folder(one) is not None]
    except BadInput:  # a text that cannot be a path
        return
    # A relative name may be a repository of the hub. Without this a disk that is not mounted would change the key.
    if not found and Path(name).expanduser().is_absolute():
        raise BadInput(f"{file} names {quoted(name)}, which is not there: is its disk mounted?")
    yield from found


def _named(file: Path) -> FileName:
    """Clones in two places give a task one key."""
    return FileName(file.relative_to(PROJECT) if file.is_relative_to(PROJECT) else file)


def _texts(value: Any) -> Iterator[str]:
    """Every text of a YAML value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)
