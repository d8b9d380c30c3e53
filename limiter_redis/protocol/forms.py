"""The forms in which the script is called, and which comes next where a server does not know one.

Pure. In each case the server says so before it begins with the call, so none is carried out twice.
"""

from __future__ import annotations

import re
from enum import IntEnum

from redis.exceptions import NoPermissionError, NoScriptError, ReadOnlyError


class Form(IntEnum):
    """How a call of the script is sent."""

    FUNCTION = 0
    """By the name of a function."""

    LOADING = 1
    """The same behind FUNCTION LOAD, so there are two replies."""

    DIGEST = 2
    """As a script, by its digest."""

    TEXT = 3
    """As a script, with its text."""


COMMANDS = {
    Form.FUNCTION: "FCALL",
    Form.LOADING: "FCALL",
    Form.DIGEST: "EVALSHA",
    Form.TEXT: "EVAL",
}
"""The commands of the forms."""

_NO_WRITES = re.compile("(?:MISCONF|NOREPLICAS) ")
"""How the errors of a server begin that takes no writes for a while."""


_NO_COMMAND = re.compile("unknown|unsupported|disabled|not (?:available|support|allowed|permitted)")
"""In what a server, a proxy or a hosted service says of a command that it does not have."""

_EVAL = re.compile(r"\beval(?:sha)?\b")
_EVAL_COMMAND = re.compile(r"'eval(?:sha)?' command", re.IGNORECASE)


def form_after(form: Form, error: Exception, *, reads: bool) -> Form | None:
    """Return the form in which to send a call again; None: what the server said is about else.

    Args:
        form: in which it was sent.
        error: what the server said.
        reads: whether the call looks, and changes nothing that has to be changed: a server that
            takes no writes carries out a script up to the first one, and does not begin a function.
    """
    if form is Form.DIGEST:
        return Form.TEXT if isinstance(error, NoScriptError) else None
    if form is Form.TEXT:
        return None
    if _is_not_found(error):
        return Form.LOADING if form is Form.FUNCTION else Form.DIGEST
    takes_no_writes = isinstance(error, ReadOnlyError) or _NO_WRITES.match(str(error))
    if has_no_functions(error) or (reads and takes_no_writes):
        return Form.DIGEST
    return None


def has_no_functions(error: Exception) -> bool:
    """Whether a server, or the user's rights there, have no FCALL."""
    said = str(error).lower()
    if isinstance(error, NoPermissionError):
        return "fcall" in said
    return "fcall" in said and _NO_COMMAND.search(said) is not None


def may_call_no_script(error: Exception) -> bool:
    """Whether the user's rights do not have EVALSHA, or EVAL."""
    return isinstance(error, NoPermissionError) and _EVAL_COMMAND.search(str(error)) is not None


def has_no_scripts(error: Exception) -> bool:
    """Whether a server, or the user's rights there, have no EVALSHA or EVAL.

    An error of a script, or about an argument, may have that word in it, too.
    """
    if isinstance(error, NoPermissionError):
        return may_call_no_script(error)
    said = str(error).lower().partition(", with args")[0]
    of_command = _EVAL.search(said) is not None and _NO_COMMAND.search(said) is not None
    return of_command and "script:" not in said


def is_loaded(reply: object) -> bool:
    """Whether the reply to FUNCTION LOAD says that the library is there."""
    return not isinstance(reply, Exception) or "already exists" in str(reply)


def _is_not_found(error: Exception) -> bool:
    return "function not found" in str(error).lower()
