"""The limits file: TOML, one table for each function, or an array of tables for several limits.

::

    [bill]                          # at most one at a time for each tenant
    by = "tenant"
    per_value = { acme = 2 }        # and two for this one

    [[sync_crm]]                    # both of these limits, all or none
    constant = "crm"
    max_concurrent = 4

    [[sync_crm]]
    by = "tenant"
    max_concurrent = 2
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from limiter_cli.demo.inputs import InputError, Problem, explain
from limiter_cli.demo.plan import CallView
from limiter_core import LIMIT_BY, ArgumentView, ConcurrencyLimit, ConfigurationError
from limiter_core import ConflictResolution as Resolution

__all__ = ("LimitTable", "Limits", "hurried", "load_limits", "parse_limits", "read_limits")

Limits = dict[str, tuple[ConcurrencyLimit, ...]]
"""The limits of each function, by its name."""

Names = Annotated[
    str | list[str] | None, Field(description="an argument's name, or a list of names")
]
Patience = Annotated[float | None, Field(description="a number of seconds")]


class LimitTable(BaseModel):
    """One table: the options of `ConcurrencyLimit`, as far as a file can state them.

    Checks shapes; `ConcurrencyLimit` checks the values.

    Attributes:
        by: the argument, or arguments, whose values share the limit; left out, the function does.
        constant: a name that everything under this limit shares, in place of `by`.
        per_value: `max_concurrent` for single values of the one argument that `by` names.
        priority: a number, or the argument that holds it; left out, the call log's `priority`.
        cost: a number of slots, or the argument that holds it.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    by: Names = None
    constant: str | None = Field(None, description="text: a name for what is shared")
    max_concurrent: int = Field(1, description="a whole number of slots")
    per_value: dict[str, int] = Field(
        default_factory=dict[str, int],
        description="a table from values to whole numbers of slots, zero or more",
    )
    scope: str | None = Field(None, description="text: a sub-namespace for the keys")
    on_conflict: Literal["queue", "priority", "cancel", "cancel_running", "keep_latest"] = Field(
        "queue", description='"queue", "priority", "cancel", "cancel_running" or "keep_latest"'
    )
    priority: int | str | None = Field(None, description="a whole number, or an argument's name")
    cost: int | str = Field(1, description="a whole number of slots, or an argument's name")
    fair_by: Names = None
    max_waiting: int | None = Field(None, description="a whole number of waiting calls")
    timeout: Patience = None
    lease: float = Field(30.0, description="a number of seconds")
    max_hold: Patience = None
    name: str | None = Field(None, description="text: what the limit is called")

    def limit(self) -> ConcurrencyLimit:
        """Return the limit that the table declares.

        Raises:
            ConfigurationError: a value is not allowed, or two options contradict each other.
        """
        self._check_together()
        return ConcurrencyLimit(
            self.by if self.constant is None else LIMIT_BY.constant(self.constant),
            self._per_value() if self.per_value else self.max_concurrent,
            scope=self.scope,
            on_conflict=Resolution(self.on_conflict),
            priority=_from_log if self.priority is None else _number(self.priority),
            cost=_number(self.cost),
            fair_by=self.fair_by,
            max_waiting=self.max_waiting,
            timeout=self.timeout,
            lease=self.lease,
            max_hold=self.max_hold,
            name=self.name,
        )

    def _check_together(self) -> None:
        if self.by is not None and self.constant is not None:
            raise ConfigurationError("constant stands in place of by: leave one of them out")
        if self.per_value and not isinstance(self.by, str):
            raise ConfigurationError("per_value needs one argument's name in by")
        if self.per_value and self.max_concurrent < 0:
            raise ConfigurationError(
                f"max_concurrent must be at least 0, got {self.max_concurrent}"
            )
        if any(slots < 0 for slots in self.per_value.values()):
            raise ConfigurationError(f"per_value must be zero or more, got {self.per_value!r}")
        if self.priority is not None and self.on_conflict != "priority":
            raise ConfigurationError('priority has no effect without on_conflict = "priority"')

    def _per_value(self) -> Callable[[ArgumentView], int]:
        name, slots, otherwise = cast(str, self.by), self.per_value, self.max_concurrent
        return lambda view: slots.get(str(view.get_argument(name)), otherwise)


def load_limits(path: Path) -> Limits:
    """Read a limits file.

    Raises:
        InputError, OSError: as `read_limits` and `parse_limits`.
    """
    return parse_limits(read_limits(path), path)


def read_limits(path: Path) -> str:
    """Read a limits file's text.

    Raises:
        InputError: it is no text.
        OSError: the file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].count(b"\n")
        raise InputError(path, [(line, "not UTF-8 text")]) from None


def parse_limits(text: str, path: Path) -> Limits:
    """Return the limits that a text declares.

    Raises:
        InputError: names the line of every table or option that is wrong.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(path, [_syntax_problem(str(error), text)]) from None
    limits: Limits = {}
    problems: list[Problem] = []
    for function, given in tables.items():
        found: list[ConcurrencyLimit] = []
        for index, table in enumerate(
            cast(list[Any], given) if isinstance(given, list) else [given]
        ):
            place = (function, index) if isinstance(given, list) else (function,)
            limit, said = _limit(function, table)
            problems += [(line_of(text, (*place, *option)), what) for option, what in said]
            if limit is not None:
                found.append(limit)
        limits[function] = tuple(found)
    if problems:
        raise InputError(path, problems)
    return limits


def hurried(limit: ConcurrencyLimit, speed: float) -> ConcurrencyLimit:
    """Return the limit for a replay that runs `speed` times as fast as the log."""
    return replace(
        limit,
        timeout=None if limit.timeout is None else cast(float, limit.timeout) / speed,
        max_hold=None if limit.max_hold is None else cast(float, limit.max_hold) / speed,
    )


def line_of(text: str, path: tuple[str | int, ...]) -> int:
    """Return the line on which a table or an option of a valid TOML text begins.

    `tomllib` reports no positions, but they can be found: the option begins behind the last line up
    to which the text is valid without it.

    Args:
        text: the whole text.
        path: its place in the parsed text, with indexes into arrays of tables.
    """
    lines = text.splitlines(keepends=True)
    behind = 0
    for count in range(1, len(lines) + 1):
        try:
            tables = tomllib.loads("".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue  # in the middle of a value
        if _contains(tables, path):
            return behind + 1
        behind = count
    return 1


def _contains(tables: Any, path: tuple[str | int, ...]) -> bool:
    for step in path:
        if isinstance(step, int):
            if not isinstance(tables, list) or step >= len(cast(list[Any], tables)):
                return False
        elif not isinstance(tables, dict) or step not in tables:
            return False
        tables = cast(Any, tables)[step]
    return True


def _limit(
    function: str, table: object
) -> tuple[ConcurrencyLimit | None, list[tuple[tuple[str, ...], str]]]:
    """Return the limit of one table, or its problems: the option, if it is one's, and what."""
    if not isinstance(table, dict):
        what = f"{function} must be a table of options, such as [{function}], got {table!r}"
        return None, [((), what)]
    given = cast("dict[str, Any]", table)
    try:
        return LimitTable.model_validate(given).limit(), []
    except ValidationError as report:
        said = explain(report, LimitTable, given)
        return None, [
            ((name,) if name in given else (), f"[{function}] {said[name]}") for name in said
        ]
    except ConfigurationError as error:
        # Its sentences begin with the option that they are about.
        sentences = str(error).split("\n")
        options = [sentence.partition(" ")[0] for sentence in sentences]
        return None, [
            ((option,) if option in given else (), f"[{function}] {sentence}")
            for option, sentence in zip(options, sentences, strict=True)
        ]


def _syntax_problem(message: str, text: str) -> Problem:
    what, _, position = message.partition(" (at ")
    line = re.match(r"line (\d+)", position)
    number = int(line[1]) if line else 1 + text.rstrip("\n").count("\n")
    return number, f"not valid TOML: {what}"


def _from_log(view: ArgumentView) -> int:
    return view.priority if isinstance(view, CallView) else 0


def _number(given: int | str) -> int | Callable[[ArgumentView], Any]:
    return given if isinstance(given, int) else lambda view: view.get_argument(given)
