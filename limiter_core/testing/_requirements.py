"""What must be so before the rest of the package is imported: its requirements, and pytest's help.

pytest explains a failed `assert` only in modules it knows of before they are imported; the
contract's asserts are in modules of this package, so these are registered here.
"""

from __future__ import annotations

try:
    import hypothesis as hypothesis  # noqa: PLC0414  (imported to see that it is there)
    import pytest
except ImportError as error:
    raise ImportError(
        "limiter_core.testing needs pytest and hypothesis: "
        'install the extra "testing", as in pip install "concurrency-limits[testing]"'
    ) from error

pytest.register_assert_rewrite(
    *(
        f"limiter_core.testing.{name}"
        for name in ("contract", "model_comparison", "scenarios", "stateful", "store_under_test")
    )
)
