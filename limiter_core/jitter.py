"""Random numbers that spread work in time: from a source of their own.

So a program that seeds `random` gets the numbers that it expects.
"""

from __future__ import annotations

import os
import random

jitter = random.Random()  # noqa: S311  (nothing secret)

if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=jitter.seed)  # else siblings would do all at one time
