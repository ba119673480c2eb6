"""A wheel carries plugins/ and conf/ inside llmstages and works from any folder."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_a_wheel_holds_everything_and_runs_from_anywhere(tmp_path):
    pytest.importorskip("wheel")
    copy = tmp_path / "source"
    ignored = shutil.ignore_patterns(
        ".git", "__pycache__", "*.egg-info", "store", "runs", "build", "tests", "story"
    )
    shutil.copytree(ROOT, copy, ignore=ignored)
    made = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(tmp_path),
            str(copy),
        ],
        capture_output=True,
        text=True,
    )
    if made.returncode and "setuptools" in made.stderr and "No module" in made.stderr:
        pytest.skip("setuptools is not installed here")
    assert made.returncode == 0, made.stderr[-1000:]
    wheel = next(tmp_path.glob("*.whl"))
    names = set(zipfile.ZipFile(wheel).namelist())
    for root, inside in (
        ("llmstages", "llmstages"),
        ("plugins", "llmstages/plugins"),
        ("conf", "llmstages/conf"),
    ):
        for path in (copy / root).rglob("*"):
            if path.suffix in ((".yaml",) if root == "conf" else (".py", ".html", ".css", ".js")):
                assert f"{inside}/{path.relative_to(copy / root).as_posix()}" in names, (
                    f"{path} is not in the wheel"
                )
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\nimport llmstages; assert llmstages.__file__.startswith({str(site)!r})\n"
        "from llmstages.cli.main import main; sys.exit(main(['list', 'recipe']) or main(['plan', 'only=pages']))"
    )
    shown = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert shown.returncode == 0 and "story" in shown.stdout and "pages.world" in shown.stdout, (
        shown.stderr
    )
