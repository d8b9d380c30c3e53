"""What is installed: the version, the entry points, the extras."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import entry_points, requires, version
from pathlib import Path

import pytest

import limiter_core
from limiter_core import _pyinstaller, registry
from tests.project._tree import ROOT, code_blocks, packages, script

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_installed_version_is_that_of_the_code() -> None:
    assert version("concurrency-limits") == limiter_core.__version__


def test_the_schemes_that_the_code_knows_are_those_of_the_metadata() -> None:
    own = PROJECT["project"]["entry-points"]["limiter.stores"]
    assert own == registry.BUILT_IN
    assert own.keys() <= entry_points(group="limiter.stores").names


URLS = ("memory://", "memory://shop", "redis://h", "rediss://h", "unix:///s")
URLS += ("redis+cluster://h", "redis+sentinel://h/m", "rediss+cluster://h", "rediss+sentinel://h/m")


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_without_metadata_the_stores_of_this_package_are_known(tmp_path: Path, kind: str) -> None:
    """As in a zipapp, a frozen program, or an image that leaves the metadata out."""
    ours = tmp_path / ("ours.zip" if kind == "zip" else "ours")
    if kind == "zip":
        with zipfile.ZipFile(ours, "w") as archive:
            for package in ("limiter_core", "limiter_memory", "limiter_redis"):
                for path in (ROOT / package).rglob("*"):
                    archive.write(path, path.relative_to(ROOT))
    else:
        ours.mkdir()
        for package in ("limiter_core", "limiter_memory", "limiter_redis"):
            (ours / package).symlink_to(ROOT / package)
    needed = tmp_path / "needed"
    needed.mkdir()
    for folder in map(Path, {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}):
        for path in folder.iterdir():
            if not path.name.startswith(("concurrency_limits", "_", "limiter_")):
                (needed / path.name).symlink_to(path)
    script = f"""
from importlib.metadata import entry_points
from limiter_core import ConcurrencyLimit, ConfigurationError, Limiter, SyncLimiter
assert not entry_points(group="limiter.stores")
for url in {URLS}:
    Limiter(url)
with SyncLimiter("memory://") as limiter, limiter.hold(ConcurrencyLimit("user"), {{"user": 1}}):
    pass
try:
    Limiter("etcd://h")
except ConfigurationError as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-S", "-c", script],
        check=False,
        env={**os.environ, "PYTHONPATH": f"{ours}{os.pathsep}{needed}"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert run.returncode == 0, run.stderr
    assert "memory, redis, redis+cluster" in run.stdout


def test_pyinstaller_is_told_what_is_found_by_name() -> None:
    """`make test-wheel` freezes a program; here is only said what has to come along."""
    hooks = PROJECT["project"]["entry-points"]["pyinstaller40"]
    assert hooks == {"hook-dirs": "limiter_core._pyinstaller:hook_dirs"}
    (folder,) = _pyinstaller.hook_dirs()
    assert [path.name for path in Path(folder).glob("hook-*")] == ["hook-limiter_core.py"]
    assert _pyinstaller.hidden_imports() == ["limiter_memory", "limiter_redis"]
    with_data = {
        name
        for name, package in packages().items()
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and path.name != "py.typed"
    }
    assert set(_pyinstaller.WITH_DATA) == with_data


def test_the_command_is_installed() -> None:
    assert "limiter" in entry_points(group="console_scripts").names


def test_without_extras_two_requirements_are_enough() -> None:
    plain = [text for text in requires("concurrency-limits") or () if "extra ==" not in text]
    assert sorted(text.partition(">")[0] for text in plain) == ["anyio", "pydantic"]


def test_the_wheel_has_every_package() -> None:
    listed = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(name.removeprefix("adapters/") for name in listed) == sorted(packages())


def test_the_wheel_has_the_sample_of_the_demo() -> None:
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {"examples/data": "limiter_cli/data"}
    assert list((ROOT / "examples/data").glob("*.jsonl"))


def test_an_install_from_the_source_needs_hatchling_alone() -> None:
    assert [each.partition(">")[0] for each in PROJECT["build-system"]["requires"]] == ["hatchling"]
    hatch = PROJECT["tool"]["hatch"]
    hooks = [hatch["metadata"], hatch["build"], *hatch["build"]["targets"].values()]
    used = [each for hook in hooks for each in hook.get("hooks", {}).values()]
    assert used
    assert not [each for each in used if each.get("dependencies")]


def test_the_long_description_links_into_the_repository() -> None:
    """PyPI shows it, beside no file of the repository."""
    hook = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"]["path"]
    source = PROJECT["project"]["urls"]["Source"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = script(hook).with_absolute_links(readme, source, "1.2.3")
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]*)\)", shown)
    assert [link for _, link in links if not link.startswith("https://")] == []
    assert ("!", f"{source}/raw/v1.2.3/docs/assets/demo.svg") in links
    assert ("", f"{source}/blob/v1.2.3/CHANGELOG.md") in links
    assert all(block.text in shown for block in code_blocks("README.md", "python"))


def test_types_are_checked_in_every_package() -> None:
    elsewhere = {"limiter_fastmcp"}  # it has an environment of its own
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"-p {name}\n" in makefile for name in elsewhere)
    assert (ROOT / ".ci/pyright-fastmcp.json").exists()
    assert set(packages()) - elsewhere <= set(PROJECT["tool"]["mypy"]["packages"])
    checked = {name.removeprefix("adapters/") for name in PROJECT["tool"]["pyright"]["include"]}
    assert {*packages(), "examples", "benchmarks"} - elsewhere <= checked
