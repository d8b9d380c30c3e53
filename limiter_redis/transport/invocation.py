"""In which form the script is called at a node: found for a connection, by its first call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from limiter_redis.connection.nodes import Node
from limiter_redis.protocol.commands import Encoder, Operation
from limiter_redis.protocol.forms import (
    COMMANDS,
    Form,
    form_after,
    has_no_functions,
    is_loaded,
    may_call_no_script,
)

LOADING = Form.LOADING  # a member of an enum takes its time to be looked up


class Invocation:
    """How the script is called at one node.

    Attributes:
        form: in which a call is sent at first.
        used: whether it was called.
    """

    __slots__ = ("form", "used")

    def __init__(self) -> None:
        self.form = Form.FUNCTION
        self.used = False

    def forget(self) -> None:
        """Find out anew: a connection ended, and the next may lead to another server."""
        self.form = Form.FUNCTION


class Invocations:
    """How the script is called at each node of a store."""

    def __init__(self) -> None:
        self._by_node: dict[Node, Invocation] = {}

    def at(self, node: Node) -> Invocation:
        """Return how it is called at a node."""
        found = self._by_node.get(node)
        return found or self._by_node.setdefault(node, Invocation())

    def __str__(self) -> str:
        """Return the forms that are in use, for people; "" before the first call."""
        used = {each.form is Form.FUNCTION for each in [*self._by_node.values()] if each.used}
        names = {True: "functions", False: "scripts"}
        return " and ".join(names[each] for each in sorted(used, reverse=True))


class ScriptCall:
    """A call of the script that is sent, perhaps more than once.

    Attributes:
        form: in which it was sent last, or is to be sent; None: as its node has it.
        loads: whether the reply that comes next is that to FUNCTION LOAD.
        refused: whether the server did not take the form, and it has another now.
    """

    __slots__ = ("form", "loads", "refused")

    def __init__(self) -> None:
        self.form: Form | None = None
        self.loads = False
        self.refused = False

    def encoded(
        self, encode: Encoder, operations: Sequence[Operation], invocation: Invocation
    ) -> bytes:
        """Return the bytes to send."""
        if self.form is None:
            self.form = invocation.form
            invocation.used = True
        self.loads = self.form is LOADING
        self.refused = False
        return encode(operations, self.form)

    @property
    def command_name(self) -> str:
        """The name of the command whose reply comes next."""
        return "FUNCTION" if self.loads else COMMANDS[self.form or Form.FUNCTION]

    def loaded(self, reply: Any, invocation: Invocation) -> None:
        """Take the reply to FUNCTION LOAD; that to the call follows."""
        self.loads = False
        if not is_loaded(reply):
            invocation.form = Form.DIGEST

    def change_form(
        self, error: Exception, invocation: Invocation, operations: Sequence[Operation]
    ) -> bool:
        """Take another form, if the server said that it does not take this one; whether it did."""
        assert self.form is not None
        reads = all(each.text.startswith("inspect ") for each in operations)
        other = form_after(self.form, error, reads=reads)
        if other is None:
            if may_call_no_script(error):
                invocation.forget()  # the rights are others by now: the next call finds out anew
            return False
        self.form, self.refused = other, True
        if has_no_functions(error):
            invocation.form = Form.DIGEST
        return True
