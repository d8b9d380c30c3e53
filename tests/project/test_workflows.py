"""The workflows run what the Makefile has, on the Pythons that the metadata names."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml

from tests.project._tree import ROOT

FOLDER = ROOT / ".github" / "workflows"
NAMES = sorted(path.name for path in FOLDER.glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SUPPORTED = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def workflow(name: str) -> dict[Any, Any]:
    read: dict[Any, Any] = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    return read


def test_there_are_workflows_for_tests_and_releases() -> None:
    assert NAMES == ["release.yml", "tests.yml"]


@pytest.mark.parametrize("name", NAMES)
def test_what_they_run_is_there(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    lines = re.findall(r"make (?:--[a-z-]+ )*((?:[a-z-]+ ?)+)$", text, re.MULTILINE)
    lines += re.findall(r"target: \[(.*)\]", text)
    asked = {target for line in lines for target in re.findall(r"[a-z-]+", line)}
    assert asked
    for target in asked:
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
    for path in re.findall(r"tests/[\w/.]+", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", NAMES)
def test_no_job_may_do_more_than_it_needs(name: str) -> None:
    read = workflow(name)
    assert read["permissions"] == {"contents": "read"}
    for job, each in read["jobs"].items():
        assert each["timeout-minutes"], job
        assert each.get("permissions", {}) == ({"id-token": "write"} if job == "publish" else {})


def test_the_core_is_tried_on_each_system_and_python() -> None:
    jobs = workflow("tests.yml")["jobs"]
    core = jobs["core"]["strategy"]["matrix"]
    assert {each.partition("-")[0] for each in core["system"]} == {"ubuntu", "macos", "windows"}
    assert core["python"] == [*SUPPORTED, "3.14", "3.15"]
    assert jobs["all"]["strategy"]["matrix"]["python"] == [*SUPPORTED, "3.14"]


def test_the_makefile_tries_the_pythons_of_the_metadata() -> None:
    (tested,) = re.findall(r"^TESTED := (.*)$", MAKEFILE, re.MULTILINE)
    assert tested.split() == SUPPORTED
    assert PROJECT["requires-python"] == f">={SUPPORTED[0]}"
