"""MkDocs hook: pages under reference/ made from the config models, rooms, commands and Makefile, so no copy can age.

Named in mkdocs.yml; `make docs` runs it. Every function returns Markdown, which tests/docs reads too.
"""

import ast
import importlib
import inspect
import json
import re
import types
from collections.abc import Iterator, Mapping
from pkgutil import resolve_name
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
import pyarrow as pa
from annotated_types import Ge, Gt, Le, Lt, MinLen
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic.fields import FieldInfo

from dagster_project.cli import main
from dagster_project.experiment import ALL_SECTIONS
from dagster_project.rooms import ROOMS, STAGES
from resources.launcher.deployment import Deployment
from resources.section import Section
from resources.sources import PROJECT
from resources.stage import Stage

SIGNS = {Ge: ("≥", "ge"), Gt: (">", "gt"), Le: ("≤", "le"), Lt: ("<", "lt")}
MACHINE = {"gpus": "GPUs of this machine", "cpus": "cores of this machine", "python": "this interpreter"}
"""Defaults of a deployment that are looked up where it runs."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for name, content in pages().items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Files of the repository that are no pages here (`../SECURITY.md`) keep their name and lose their link."""
    return re.sub(r"\[([^\]]+)\]\(\.\./[A-Z]+\.md\)", r"\1", markdown)


def pages() -> dict[str, str]:
    """Path -> Markdown of every generated page."""
    return {
        "reference/knobs.md": knobs(),
        "reference/rooms.md": rooms(),
        "reference/columns.md": columns(),
        "reference/commands.md": commands(),
    }


def knobs() -> str:
    """Every knob of every section with kind and bounds, default, and what its docstring says: unit and source."""
    head = (
        "# Knobs\n\nEvery field of an experiment file, from the config classes themselves. The default is the paper's "
        "value wherever the paper or the authors' scripts give one, but for the SAE's recipe (`preset: authors` is "
        "theirs); the source stands in brackets. "
        "A knob of any section but `compute` is part of the cache key of the assets that read it.\n"
    )
    own = (
        "\n## The file itself\n\n| key | what it does |\n|---|---|\n"
        "| `extends` | name of the experiment whose knobs this one starts from |\n"
        "| `description` | one sentence for lists |\n"
        "| `materialize` | `auto`: a sensor runs it when its values are new or edited; `manual` (default): you do |\n"
    )
    sections = "".join(_section(f"`{name}`", name, config) for name, config in ALL_SECTIONS.items())
    where = _section("`compute.yaml`", "compute.yaml", Deployment)
    return head + own + sections + where


def _section(title: str, name: str, config: type[Section]) -> str:
    about = _flat(inspect.getdoc(config) or "")
    rows = "".join(_row(name, key, field) for key, field in config.model_fields.items())
    return f"\n## {title}\n\n{about}\n\n| knob | takes | default | what it is |\n|---|---|---|---|\n{rows}"


def _row(section: str, key: str, field: FieldInfo) -> str:
    default = MACHINE.get(key) if section == "compute.yaml" else None
    shown = default or f"`{json.dumps(_plain(field.get_default(call_default_factory=True)), ensure_ascii=False)}`"
    takes = f"{_kind(field.annotation)}{_bounds(field)}".replace("|", "\\|")
    return f"| `{key}` | {takes} | {shown} | {_flat(field.description or '')} |\n"


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | list | tuple | None) else str(value)


def _kind(annotation: Any) -> str:
    """A type as a person says it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" if value else '`""`' for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(one) for one in arguments)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin is tuple:
        return f"list of {_kind(arguments[0])}"
    names = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null"}
    return names.get(annotation, "path")


def _bounds(field: FieldInfo) -> str:
    found = [f"{SIGNS[type(m)][0]} {getattr(m, SIGNS[type(m)][1]):,}" for m in field.metadata if type(m) in SIGNS]
    found += [f"at least {m.min_length}" for m in field.metadata if isinstance(m, MinLen)]
    return f", {' and '.join(found)}" if found else ""


def rooms() -> str:
    """What each room's docstring says, and its assets with sections and inputs."""
    lines = ["# Rooms and assets\n"]
    for room in ROOMS:
        text = ast.get_docstring(ast.parse((PROJECT / "assets" / room / "__init__.py").read_text())) or ""
        lines += [f"\n## `{room}`\n", text, "\n| asset | knobs | inputs | files, read by |", "|---|---|---|---|"]
        for stage in (one for one in STAGES if one.room == room):
            sections = ", ".join(f"[`{name}`](knobs.md#{name})" for name in stage.sections) or "none"
            inputs = ", ".join(f"`{name}`" for name in stage.inputs) or "none"
            lines.append(f"| `{stage.asset}` | {sections} | {inputs} | `{stage.artifact.replace(':', '.')}` |")
        if room == "paper":
            lines.append("| `experiment_comparison` | none | `paper_report` of every experiment | a page, not cached |")
        lines += ["\n| of an opened experiment | what it gives |", "|---|---|"]
        lines += [row for stage in STAGES if stage.room == room for row in _readers(stage)]
    return "\n".join(lines) + "\n"


def _readers(stage: Stage) -> Iterator[str]:
    """What a notebook can ask of an artifact: everything public of its class, in the order of the source."""
    classes = reversed(resolve_name(stage.artifact).__mro__)
    for name, value in {name: value for one in classes for name, value in vars(one).items()}.items():
        function = getattr(value, "fget", None) or getattr(value, "func", value)
        if not name.startswith("_") and inspect.isfunction(function):
            takes = f"({', '.join([*inspect.signature(function).parameters][1:])})" if function is value else ""
            text = re.sub(r",? see `\w+`", "", (inspect.getdoc(function) or "").split("\n\n")[0])
            yield f"| `{stage.asset}.{name}{takes}` | {_flat(text)} |"


def columns() -> str:
    """Every column of every Parquet file of an artifact, from the schemas that write it."""
    lines = ["# Columns\n", "Parquet files by the asset in whose folder they lie.\n"]
    for stage in STAGES:
        schemas = schemas_of(stage)
        lines += [f"## `{stage.asset}`\n"] if schemas else []
        for file, schema in schemas.items():
            lines += [f"### `{file}` of `{stage.asset}`\n", "| column | type | what it is |", "|---|---|---|"]
            lines += [f"| `{field.name}` | {_stored(field.type)} | {_about(field)} |" for field in schema]
            lines.append("")
    return "\n".join(lines) + "\n"


def schemas_of(stage: Stage) -> Mapping[str, pa.Schema]:
    """File of the asset's folder -> its columns."""
    known = getattr(importlib.import_module(f"assets.{stage.room}.artifact"), "SCHEMAS", {})
    return known.get(stage.asset, {})


def _stored(kind: pa.DataType) -> str:
    lists = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
    return f"list of {_stored(kind.value_type)}" if lists else str(kind)


def _about(field: pa.Field) -> str:
    text = (field.metadata or {}).get(b"description", b"").decode()
    return _flat(text).replace("<", "&lt;")


def commands() -> str:
    """Help of every verb, and every make target."""
    lines = ["# Commands\n", "## `lorascope`\n", "Verbs with `--json` print the same as JSON.\n"]
    for name, command in verbs(main):
        lines += [f"### `lorascope {name}`\n", _help(name, command)]
    lines += ["## `make`\n", "| target | what it does |", "|---|---|"]
    lines += [f"| `make {name}` | {text} |" for name, text in targets().items()]
    return "\n".join(lines) + "\n"


def verbs(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command with its words, groups opened."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from verbs(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def _help(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"lorascope {name}", max_content_width=100)
    return f"{_flat(command.help or '')}\n\n```text\n{command.get_usage(context)}\n{_options(command)}```\n"


def _options(command: click.Command) -> str:
    options = [one for one in command.params if isinstance(one, click.Option)]
    return "".join(f"  {', '.join(one.opts)}: {one.help}\n" for one in options)


def targets() -> Mapping[str, str]:
    """Make target -> what its comment says."""
    found = re.findall(r"^([a-z-]+):.*?## (.*)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    return dict(found)


def _flat(text: str) -> str:
    """One line that a Markdown table can hold."""
    parts = " ".join(text.split()).split("`")  # every second one is code, in which a bar needs no escape and shows it
    return "`".join(part if place % 2 else part.replace("|", "\\|") for place, part in enumerate(parts))
