"""What is wrong with a user's file, in a sentence with a line number; and the sample files."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from limiter_cli.output import printable

__all__ = ("InputError", "Problem", "explain", "sample")

_PROBLEMS_SHOWN = 10

Problem = tuple[int, str]
"""A line number, from 1, and what is wrong there."""


class InputError(Exception):
    """A file that cannot be used; the message has one line for each problem, first line first.

    Args:
        path: the file.
        problems: at least one.
    """

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        shown = sorted(problems)[:_PROBLEMS_SHOWN]
        lines = [f"{path}, line {line}: {printable(what)}" for line, what in shown]
        if len(problems) > len(shown):
            lines.append(f"... and {len(problems) - len(shown)} more problems in {path}")
        super().__init__("\n".join(lines))


def explain(
    report: ValidationError, model: type[BaseModel], given: Mapping[str, Any]
) -> dict[str, str]:
    """Return what is wrong with each field, in the words of the model's field descriptions.

    A field's description completes the sentence "`name` must be ...".
    """
    sentences: dict[str, str] = {}
    for error in report.errors():
        name = str(error["loc"][0])
        if error["type"] == "missing":
            sentences[name] = f"{name} is missing"
        elif error["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields)
            sentences[name] = f"{reprlib.repr(name)} is not known here; there are: {known}"
        else:
            allowed = model.model_fields[name].description
            sentences[name] = f"{name} must be {allowed}, got {reprlib.repr(given[name])}"
    return sentences


def sample(name: str) -> Path:
    """Return a sample file: of the installed package, else of the checkout it runs from."""
    package = Path(__file__).parents[1]
    installed = package / "data" / name
    return installed if installed.exists() else package.parent / "examples" / "data" / name
