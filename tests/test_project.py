"""What stands around the code: workflows and templates are valid, and versions, promises and the changelog agree with each other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
GITHUB = ROOT / ".github"
SCHEMAS = {
    "vendor.github-workflows": "workflows/*.yml",
    "custom.github-workflows-require-timeout": "workflows/*.yml",
    "vendor.github-issue-forms": "ISSUE_TEMPLATE/[!c]*.yml",
    "vendor.github-issue-config": "ISSUE_TEMPLATE/config.yml",
    "vendor.dependabot": "dependabot.yml",
    "vendor.citation-file-format": "../CITATION.cff",
}


def workflow(name: str) -> dict[Any, Any]:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((GITHUB / "workflows" / name).read_text())


@pytest.mark.parametrize(("schema", "pattern"), SCHEMAS.items())
def test_files_for_the_repository_are_valid(schema: str, pattern: str) -> None:
    pytest.importorskip("check_jsonschema")
    files = sorted(GITHUB.glob(pattern)) if not pattern.startswith("..") else [ROOT / pattern.removeprefix("../")]
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_is_promised_is_tested() -> None:
    settings = (ROOT / "pyproject.toml").read_text()
    promised = re.findall(r"Python :: (3\.\d+)", settings)
    tested = workflow("ci.yml")["jobs"]["tests"]["strategy"]["matrix"]["include"]
    assert promised == sorted({entry["python"] for entry in tested}, key=lambda version: int(version[2:]))
    assert f'requires-python = ">={promised[0]}"' in settings
    assert all(f"cp3{version[2:]}-*" in settings for version in promised)
    (oldest,) = re.findall(r'"torch>=([\d.]+)"', settings)
    assert f"{oldest}.0" in [entry.get("torch") for entry in tested]
    assert any(entry["os"].endswith("-arm") for entry in tested)


def test_steps_name_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    steps = [step["run"] for job in workflow("ci.yml")["jobs"].values() for step in job["steps"] if "run" in step]
    made = [command.split()[1] for command in steps if command.startswith("make ")]
    assert made and set(made) <= targets


def test_publishing_needs_no_stored_token() -> None:
    jobs = workflow("release.yml")["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"} and set(jobs["publish"]["needs"]) == {"wheels", "sdist"}
    assert "secrets." not in (GITHUB / "workflows" / "release.yml").read_text()


def test_the_version_stands_in_one_place() -> None:
    (version,) = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", version)
    for path in [*(ROOT / "python").rglob("*.py"), ROOT / "CMakeLists.txt", ROOT / "CITATION.cff", ROOT / "mkdocs.yml"]:
        assert f'"{version}"' not in path.read_text() and f"version: {version}" not in path.read_text(), path


def test_the_changelog_has_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert text.startswith("# Changelog\n") and "keepachangelog.com" in text
    releases = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert releases[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", release) for release in releases[1:])
    kinds = re.findall(r"^### (.*)$", text, flags=re.MULTILINE)
    assert kinds and set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
