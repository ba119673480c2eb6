"""What docs/plugins.md shows and ``llmstages new plugin`` writes keeps its contract and runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from llmstages.cli.commands.new import KINDS, package_files

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "plugins.md").read_text()
SHOWN = {
    "filter": "shouting",
    "reward": "shortness",
    "rl": "dr_grpo",
    "evaluator": "brevity",
    "grader": "near_year",
    "slot": "embed",
}


def write(folder: Path, kind: str, name: str) -> str:
    """The package as a folder for PYTHONPATH, with a dist-info as pip would leave it."""
    for file, text in package_files(kind, name).items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"llmstages_{name}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1.0\n"
    )
    points = ""
    for group, entries in project["entry-points"].items():
        points += f"[{group}]\n"
        points += "".join(f"{entry} = {target}\n" for entry, target in entries.items())
    (info / "entry_points.txt").write_text(points)
    return str(folder)


def call(site: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": site},
    )


@pytest.mark.parametrize("kind", KINDS)
def test_its_own_test_passes(kind, tmp_path):
    name = SHOWN.get(kind, f"my_{kind}")
    site = write(tmp_path / "site", kind, name)
    done = call(site, tmp_path, "-m", "pytest", "-q", f"{site}/tests", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_that_uses_it_plans(kind, tmp_path):
    name = SHOWN.get(kind, f"my_{kind}")
    site = write(tmp_path / "site", kind, name)
    use = KINDS[kind].use.format(name=name)
    words = [word.strip("'") for word in use.split()]
    planned = call(site, tmp_path / "site", "-m", "llmstages", "plan", *words[2:])
    assert planned.returncode == 0, planned.stderr
    assert "new" in planned.stdout


@pytest.mark.parametrize("kind, name", SHOWN.items())
def test_the_guide_shows_what_the_command_writes(kind, name):
    blocks = re.findall(r"^```python\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
    assert package_files(kind, name)[f"llmstages_{name}.py"] in blocks


def test_the_command_writes_a_package_and_refuses_wrong_names(tmp_path, monkeypatch, capsys):
    from llmstages.cli.main import main

    monkeypatch.chdir(tmp_path)
    assert main(["new", "plugin", "my_filter"]) == 0
    assert (tmp_path / "llmstages-my-filter" / "llmstages_my_filter.py").exists()
    assert "pip install -e ." in capsys.readouterr().out
    assert main(["new", "plugin", "my_filter"]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["new", "plugin", "My-Filter"]) == 2
    assert "small letters, digits and underscores" in capsys.readouterr().err
