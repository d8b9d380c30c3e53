"""Read by PyInstaller, whose names these are."""  # noqa: N999  (that of this file, too)

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from limiter_core._pyinstaller import WITH_DATA, hidden_imports

_hooks: Any = import_module("PyInstaller.utils.hooks")

hiddenimports = hidden_imports()
datas = [
    file
    for package in WITH_DATA
    if find_spec(package) is not None
    for file in _hooks.collect_data_files(package)
]
