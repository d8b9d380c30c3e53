"""Durations as people read them."""

from __future__ import annotations

import pytest

from limiter_core.durations import duration_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.2, "200 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (754.4, "754 s"),
    ],
)
def test_a_duration_has_the_digits_that_matter(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
