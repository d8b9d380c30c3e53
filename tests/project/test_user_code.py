"""Code that users write, as the type checkers read it, runs."""

from __future__ import annotations

import asyncio
import runpy

from tests.project._tree import ROOT


def test_typed_user_code_runs() -> None:
    code = runpy.run_path(str(ROOT / "tests/typing/user_code.py"))
    assert len(asyncio.run(code["main"]())) == 10
