"""A module that an extra installs, and that is missing."""

from __future__ import annotations

from importlib import import_module

import pytest

from limiter_core.extras import required


def test_an_import_that_fails_names_the_extra_to_install() -> None:
    with pytest.raises(ImportError) as caught, required("queue", "limits for queues need a queue"):
        import_module("no_such_queue")
    assert str(caught.value) == (
        'limits for queues need a queue: pip install "concurrency-limits[queue]"'
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
