"""`limiter_core.testing` alone needs pytest and hypothesis, and says how to get them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from limiter_core.requests import Refused
from limiter_core.testing import FakeClock, StoreUnderTest, UnlimitedStore, run_sync
from limiter_core.testing.scenarios.admission import the_limit_is_reached_and_never_passed


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stderr


@pytest.mark.parametrize("missing", ["pytest", "hypothesis"])
def test_what_is_missing_is_named_with_the_extra(missing):
    told = run(f"import sys; sys.modules[{missing!r}] = None; import limiter_core.testing")
    assert 'limiter_core.testing needs pytest and hypothesis: install the extra "testing"' in told


def test_the_limiter_needs_neither():
    hide = "import sys; sys.modules.update(pytest=None, hypothesis=None); "
    assert run(hide + "import limiter_core, limiter_memory; limiter_core.SyncLimiter()") == ""


def test_failed_asserts_of_the_contract_are_explained():
    """Pytest does so in modules that it was told of before they were imported."""
    tested = StoreUnderTest(FakeClock())
    with pytest.raises(AssertionError, match=r"where .* = KeySnapshot\("):
        run_sync(the_limit_is_reached_and_never_passed.steps(tested), Overfull())


class Overfull(UnlimitedStore):
    """Admits as many as it should, and shows one more."""

    def acquire(self, request):
        full = self.inspect("contract/a").in_use > 3
        return Refused("contract/a", 3, 3) if full else super().acquire(request)

    def inspect(self, key):
        snapshot = super().inspect(key)
        return replace(snapshot, in_use=snapshot.in_use + (snapshot.in_use == 3))
