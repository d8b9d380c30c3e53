"""The call log: JSON lines, one call each, in any order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from limiter_cli.demo.inputs import InputError, Problem, explain

__all__ = ("Call", "load_calls")

Seconds = Annotated[
    float, Field(ge=0, allow_inf_nan=False, description="a number of seconds, zero or more")
]


class Call(BaseModel):
    """One line of the log.

    Attributes:
        at: when the call was made, in seconds from the start of the log.
        function: its function's name, as the limits' tables name it.
        arguments: by name; what the strategies look at.
        duration: seconds it ran, once it ran.
        priority: higher is served first, under `on_conflict = "priority"`.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    at: Seconds
    function: str = Field(min_length=1, description="the name of a function")
    arguments: dict[str, Any] = Field(
        default_factory=dict[str, Any], description="an object, from names to values"
    )
    duration: Seconds
    priority: int = Field(
        default=0, gt=-(2**31), lt=2**31, description="a whole number within 2**31"
    )


def load_calls(path: Path) -> list[tuple[int, Call]]:
    """Read a call log.

    Returns:
        Line number and call, earliest first; calls of one moment in the order of their lines.

    Raises:
        InputError: names every line that is no call, or says that there are none.
        OSError: the file cannot be read.
    """
    calls: list[tuple[int, Call]] = []
    problems: list[Problem] = []
    # In binary, because only a line feed ends a JSON line; `str.splitlines` knows ten others.
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                calls.append((number, _call(line.removeprefix(b"\xef\xbb\xbf"))))
            except ValueError as error:
                problems.extend((number, sentence) for sentence in str(error).split("\n"))
    if problems:
        raise InputError(path, problems)
    if not calls:
        raise InputError(path, [(1, "there are no calls in it")])
    return sorted(calls, key=lambda numbered: numbered[1].at)


def _call(line: bytes) -> Call:
    try:
        given: Any = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text: {error.reason} at byte {error.start + 1}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg} (column {error.colno})") from error
    except RecursionError:
        raise ValueError("not usable JSON: it is nested too deeply") from None
    if not isinstance(given, dict):
        raise ValueError(  # noqa: TRY004  (wrong input, not a wrong type in the code)
            f'a call is an object, such as {{"at": 0.5, "function": "bill", "duration": 1}}, '
            f"got {type(given).__name__}"
        )
    try:
        return Call.model_validate(given)
    except ValidationError as report:
        said = explain(report, Call, cast("dict[str, Any]", given))
        raise ValueError("\n".join(said.values())) from None
