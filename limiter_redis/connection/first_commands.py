"""After which command a server ended a connection.

Some proxies hang up on a command that they do not have, and say nothing of it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from redis.exceptions import (
    ConnectionError,  # noqa: A004  (redis-py's own)
)
from redis.sentinel import MasterNotFoundError

_ENDED = ("closed by server", "reset by peer")


class EndedByServer(ConnectionError):
    """The server ended a connection, and did not say why."""


def ended_after(command: str) -> EndedByServer:
    """Return the error for a connection that the server ended after a command."""
    if not command:
        return EndedByServer("Connection closed by server.")
    return EndedByServer(
        f"Connection closed by server after {command} (a proxy before it that does not have this "
        "command may do so: then it has to pass it on)"
    )


@contextmanager
def first_commands(connection: Any) -> Generator[None, None, None]:
    """Watch what redis-py sends while it opens a connection, of either world.

    Raises:
        ConnectionError: the server ended it; names the command.
    """
    sent = ""
    send = connection.send_command

    def noting(*command: Any, **options: Any) -> Any:
        nonlocal sent
        # Without its arguments: they may be secrets.
        sent = " ".join(map(str, command[: 2 if command[0] == "CLIENT" else 1]))
        return send(*command, **options)

    connection.send_command = noting
    try:
        yield
    except ConnectionError as error:
        of_server = sent and not isinstance(error, MasterNotFoundError)  # that is of the Sentinels
        if of_server and any(each in str(error) for each in _ENDED):
            raise ended_after(sent) from error
        raise
    finally:
        del connection.send_command
