"""The events that processes noted, compared with the notes of their bodies.

A process that lives sends for each grant one `Granted`, before its body begins, and one end. One
that is killed sends what it can; none is sent twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from pathlib import Path


def disagreements(
    files: Iterable[Path],
    bodies: Mapping[int, Iterable[str]],
    killed: Container[int],
    children: int = 0,
) -> list[str]:
    """Return where events and bodies disagree, as text.

    Args:
        files: of events, each named by its process.
        bodies: the lease ids of the bodies that began, by process.
        killed: the processes that did not end by themselves.
        children: the bodies that each runs at once in processes of their own. It reports those
            after they began, and may be killed before.
    """
    found: list[str] = []
    for path in files:
        process = int(path.stem)
        lines = path.read_text(encoding="utf-8").split("\n")
        granted, ended = Counter[str](), Counter[str]()
        for line in lines[:-1]:  # what follows the last line break was cut off by a kill
            noted = json.loads(line)
            counted = granted if noted["event"] == "Granted" else ended
            counted[noted["id"]] += 1
            if ended[noted["id"]] > granted[noted["id"]] or (
                granted[noted["id"]] > ended[noted["id"]] + 1
            ):
                found.append(f"process {process}: {noted['event']} of {noted['id']} comes twice")
        if process not in killed:
            open_ = granted - ended
            found += [f"process {process}: {each} has no end" for each in open_]
        unheard = Counter(bodies.get(process, ())) - granted
        if len(unheard) > (children if process in killed else 0):
            found += [f"process {process}: {each} has no Granted" for each in unheard]
    return found
