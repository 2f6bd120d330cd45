"""docs/params.md, made from the schema of params.yaml and the values of the demo."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from sg.params import Params, Section

HEAD = """# Parameters

Made by `sg params` from `sg/params.py`; do not edit. params.yaml is complete: nothing has a default, and a key that
is not in this list is an error that names it. Shapes and what belongs to arrays are (z, y, x); spacings and
positions in mm are (x, y, z). "Paper" is Semantic Genesis (MICCAI 2020) as published in paper or code.

`seed` and the section of a stage are what that stage is rerun for; dvc.yaml says so stage by stage.
"""


def page() -> str:
    """The whole of docs/params.md."""
    seed = Params.model_fields["seed"]
    parts = [HEAD, "| key | type | meaning |\n| --- | --- | --- |\n" + _line("seed", seed)]
    for name, field in Params.model_fields.items():
        model = _section(field.annotation)
        if model is not None:
            parts.append(
                f"## {name}\n\n{_purpose(model)}\n\n| key | type | meaning |\n| --- | --- | --- |\n"
                + "\n".join(_lines(name, model))
            )
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _lines(prefix: str, model: type[Section]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield from _field(f"{prefix}.{name}", field.annotation, field)


def _field(key: str, annotation: Any, field: FieldInfo) -> Iterator[str]:
    """The lines of one field: its own if it holds a value, those of its sections if it holds sections."""
    annotation = _bare(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    section = _section(annotation)
    if section is not None:
        yield from _lines(key, section)
        return
    below = args[1] if origin is dict else args[0] if origin is list else None
    if below is None or not _options(below):
        yield _line(key, field)
        return
    where = f"{key}.<name>" if origin is dict else f"{key}[]"
    if field.description:
        yield f"| `{key}` | list of the below | {field.description} |"
    options = _options(below)
    for option in options:
        tag = _tag(option, options) if len(options) > 1 else ""
        yield from _lines(f"{where}{tag}", option)


def _options(annotation: Any) -> list[type[Section]]:
    annotation = _bare(annotation)
    candidates = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return [model for model in map(_section, candidates) if model is not None]


def _tag(model: type[Section], options: list[type[Section]]) -> str:
    """What tells one of several kinds of section from the others: the field in which all have fixed words."""
    for name, field in model.model_fields.items():
        if all(_is_fixed(option, name) for option in options):
            return f"({name}: {' or '.join(get_args(field.annotation))})"
    return ""


def _is_fixed(model: type[Section], name: str) -> bool:
    return name in model.model_fields and get_origin(model.model_fields[name].annotation) is Literal


def _line(key: str, field: FieldInfo) -> str:
    meaning = field.description or ""
    limits = _limits([*field.metadata])
    return f"| `{key}` | {_type(field.annotation)}{limits} | {meaning} |"


def _type(annotation: Any) -> str:
    annotation, metadata = _bare(annotation), _metadata(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    limits = _limits(metadata)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in args)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(arg) for arg in args)
    if origin is tuple:
        return "[" + ", ".join(_type(arg) for arg in args) + "]"
    if origin is list:
        return f"list of {_type(args[0])}"
    if origin is dict:
        return f"{_type(args[1])} by name"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null"}
    return names[annotation] + limits


def _limits(metadata: list[Any]) -> str:
    signs = {
        annotated_types.Ge: ">=",
        annotated_types.Gt: ">",
        annotated_types.Le: "<=",
        annotated_types.Lt: "<",
    }
    texts = []
    for item in metadata:
        for kind, sign in signs.items():
            if isinstance(item, kind):
                texts.append(f"{sign} {getattr(item, kind.__name__.lower())}")
    return f" {', '.join(texts)}" if texts else ""


def _metadata(annotation: Any) -> list[Any]:
    found: list[Any] = []
    while get_origin(annotation) is Annotated:
        for item in get_args(annotation)[1:]:
            found.extend(item.metadata if isinstance(item, FieldInfo) else [item])
        annotation = get_args(annotation)[0]
    return found


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _section(annotation: Any) -> type[Section] | None:
    annotation = _bare(annotation)
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _purpose(model: type[Section]) -> str:
    return " ".join((model.__doc__ or "").split())
