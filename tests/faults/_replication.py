"""How a server follows another one, and how that is cut off."""

from __future__ import annotations

from tests.redis._servers import PATIENCE, Process
from tests.redis._tools import until_now

AT_ONCE = ("--repl-diskless-sync-delay", "0")
"""Settings of a primary, which then sends a new replica its data without waiting for others."""


def until_in_step(replica: Process) -> None:
    """Wait until a replica has all that its primary has."""

    def linked() -> bool:
        return bool(replica.admin.info("replication").get("master_link_status") == "up")

    until_now(linked, "the replica follows", patience=PATIENCE)


def until_follows(replica: Process, primary: Process) -> None:
    """Wait until a server is an up-to-date replica of another one."""

    def follows() -> bool:
        role = replica.admin.role()
        return bool(role[0] == "slave" and role[2] == primary.port and role[3] == "connected")

    until_now(follows, "the old primary follows the new one", patience=PATIENCE)


def cut_replication(primary: Process, replica: Process) -> None:
    """End it for good, in a way of which neither makes anything but a bad connection."""
    replica.admin.config_set("masterauth", "a password that is not needed")
    primary.admin.execute_command("CLIENT", "KILL", "TYPE", "replica")


def mend_replication(replica: Process) -> None:
    """Have a server replicate again, whenever it is a replica."""
    replica.admin.config_set("masterauth", "")
