"""What a package needs that an extra of the distribution installs."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

__all__ = ("required",)


@contextlib.contextmanager
def required(name: str, sentence: str) -> Generator[None]:
    """Say which extra installs a module that is required here, if it cannot be imported.

    Args:
        name: of the extra.
        sentence: what needs the module.

    Raises:
        ImportError: the import within failed; the message names the extra.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f'{sentence}: pip install "concurrency-limits[{name}]"') from error
