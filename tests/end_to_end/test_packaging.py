"""A wheel built from the sdist holds plugins/ and conf/, and works from any folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEFT_OUT = (".git", "__pycache__", "*.egg-info", "store", "runs", "build", "dist", "story")
DATA = (".yaml", ".html", ".css", ".js", ".jinja", ".j2", ".md", ".txt", ".jsonl", ".typed")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist, and with the wheel that was built from it."""
    pytest.importorskip("build")
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    # Links stay links, as in a checkout.
    ignore = shutil.ignore_patterns(*LEFT_OUT)
    shutil.copytree(ROOT, source, ignore=ignore, symlinks=True)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), "."]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    return folder


def files_of_the_package() -> list[str]:
    """Every file that an installation needs, as its path inside the wheel."""
    names = []
    for root, inside in (("llmstages", "llmstages"), ("plugins", "llmstages/plugins")):
        for path in (ROOT / root).rglob("*"):
            if path.is_file() and path.suffix in (".py", *DATA) and "__pycache__" not in path.parts:
                names.append(f"{inside}/{path.relative_to(ROOT / root).as_posix()}")
    for path in (ROOT / "conf").rglob("*.yaml"):
        names.append(f"llmstages/conf/{path.relative_to(ROOT / 'conf').as_posix()}")
    return names


def test_the_wheel_holds_every_file(built):
    [wheel] = built.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert [name for name in files_of_the_package() if name not in inside] == []
    assert any(name.endswith("licenses/LICENSE") for name in inside)


def test_the_sdist_holds_every_file(built):
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert [name for name in files_of_the_package() if name not in inside] == []
    assert {"LICENSE", "README.md", "pyproject.toml"} <= inside


def test_the_wheel_runs_from_anywhere(built, tmp_path):
    site = tmp_path / "site"
    [wheel] = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        f"import llmstages; assert llmstages.__file__.startswith({str(site)!r})\n"
        "assert llmstages.__version__\n"
        "from llmstages.cli.main import main\n"
        "sys.exit(main(['list', 'recipe']) or main(['plan', 'only=pages']))"
    )
    command = [sys.executable, "-P", "-c", code]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "story" in shown.stdout and "pages.world" in shown.stdout
