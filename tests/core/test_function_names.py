"""`LIMIT_BY.fn_name` of one file: the same, however the file is started."""

from __future__ import annotations

import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

FILE = """
import functools, multiprocessing, sys
from limiter_core import ConcurrencyLimit, SyncLimiter

limiter = SyncLimiter("memory://")
limit = ConcurrencyLimit(max_concurrent=1)


def logged(function):
    return functools.wraps(function)(lambda *args: function(*args))


@limiter.limited(limit)
@logged
def main():
    (key,) = limiter.keys()
    print(key, flush=True)


class Job:
    def __call__(self):
        (key,) = limiter.keys()
        print(key, flush=True)


def job():
    limiter.run(limit, Job())


if __name__ == "__main__":
    main()
    job()
    for method in sys.argv[1:]:
        context = multiprocessing.get_context(method)
        for function in (main, job):
            process = context.Process(target=function)
            process.start()
            process.join()
"""


def keys(folder: Path, *arguments: str) -> list[str]:
    """Start Python in a folder; return the keys that it printed."""
    run = subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("shop.py", "bank.py", "store/__init__.py", "store/jobs/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(FILE if "_" not in name else "")
    for name in ("store/jobs/nightly.py", "store/__main__.py", "tool/__main__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(FILE)
    return tmp_path


def test_a_file_has_one_key_as_a_script_a_module_and_imported(folder):
    expected = ["shop.main()", "shop.Job()"]
    assert keys(folder, "shop.py") == expected
    assert keys(folder, str(folder / "shop.py")) == expected
    assert keys(folder / "store", "../shop.py") == expected
    assert keys(folder, "-m", "shop") == expected
    assert keys(folder, "-c", "import shop; shop.main(); shop.job()") == expected


@pytest.mark.parametrize(
    ("way", "method"), [(("shop.py",), "spawn"), (("-m", "shop"), "spawn"), (("shop.py",), "fork")]
)
def test_a_process_of_multiprocessing_has_the_key_of_its_parent(folder, way, method):
    assert keys(folder, "-W", "ignore", *way, method) == ["shop.main()", "shop.Job()"] * 2


def test_a_file_in_a_package_has_the_name_of_the_package_before_it(folder):
    expected = ["store.jobs.nightly.main()", "store.jobs.nightly.Job()"]
    assert keys(folder, "store/jobs/nightly.py") == expected
    assert keys(folder, "store/jobs/nightly.py", "spawn") == expected * 2
    assert keys(folder / "store", "jobs/nightly.py") == expected
    assert keys(folder, "-m", "store.jobs.nightly") == expected
    code = "from store.jobs import nightly; nightly.main(); nightly.job()"
    assert keys(folder, "-c", code) == expected


def test_what_a_package_runs_has_one_key(folder):
    expected = ["store.__main__.main()", "store.__main__.Job()"]
    assert keys(folder, "-m", "store") == expected
    assert keys(folder, "store/__main__.py") == expected
    assert keys(folder, "store") == expected


def test_a_folder_and_an_archive_go_by_their_names(folder):
    expected = ["tool.__main__.main()", "tool.__main__.Job()"]
    zipapp.create_archive(folder / "tool", folder / "tool.pyz")
    assert keys(folder, "tool") == keys(folder, "tool.pyz") == expected


def test_a_link_to_a_script_goes_by_the_script(folder):
    (folder / "run-it").symlink_to("shop.py")
    assert keys(folder, "run-it") == ["shop.main()", "shop.Job()"]


def test_two_scripts_have_two_keys(folder):
    assert set(keys(folder, "shop.py")).isdisjoint(keys(folder, "bank.py"))


def test_code_without_a_file_keeps_the_name_that_it_has(folder):
    assert keys(folder, "-c", FILE) == ["__main__.main()", "__main__.Job()"]
