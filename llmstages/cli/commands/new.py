"""``llmstages new plugin NAME``: a package to start from, with an entry point and a test."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from llmstages.core.console import Console
from llmstages.core.errors import StageError

SLOT_USE = "llmstages run recipe=smoke +{name}=mean_pool '+steps.{name}={{}}' only={name}"


class Kind(NamedTuple):
    """What differs between the kinds of plugins.

    Attributes:
        group: of the entry point.
        registered: the name in the group.
        check: the body of the test.
        use: a command that uses the plugin.
    """

    group: str
    registered: str
    check: str
    use: str


KINDS: Mapping[str, Kind] = {
    "filter": Kind(
        "filters",
        "{name}",
        'check_filter("{name}", keeps=["a calm page about rivers"], drops=["A PAGE THAT SHOUTS"])',
        "llmstages run recipe=smoke only=corpus +filters@corpus.filters.{name}={name}",
    ),
    "extractor": Kind(
        "extractors",
        "{name}",
        'check_extractor("{name}")',
        "llmstages run recipe=smoke only=corpus extractors@corpus.extractors.html={name}",
    ),
    "reward": Kind(
        "rewards",
        "{name}",
        'check_reward("{name}", better=[("short", "an answer that has many more words")])',
        "llmstages run recipe=smoke only=rl +rewards@rl.rewards.{name}={name}",
    ),
    "grader": Kind(
        "graders",
        "{name}",
        'check_grader("{name}", right=[("in 1848", "1849")], wrong=[("1848 or 1990", "1848")])',
        "llmstages run recipe=posttrain only=problems problems.path=problems.jsonl "
        "problems.graders.{name}={name}",
    ),
    "tool": Kind(
        "tools",
        "{name}",
        'check_tool("{name}", tmp_path, calls={{"river": "5"}})',
        "llmstages run recipe=smoke only=tools +tools@tools.tools.{name}={name}",
    ),
    "evaluator": Kind(
        "evaluators",
        "{name}",
        'check_evaluator("{name}", tmp_path)',
        "llmstages run recipe=smoke only=evaluate +evaluators@evaluate.evaluators.{name}={name}",
    ),
    "rl": Kind(
        "stages",
        "rl.{name}",
        'check_stage("rl.{name}", tmp_path, TINY)',
        "llmstages run recipe=smoke rl={name} only=rl",
    ),
    "slot": Kind(
        "stages", "{name}.mean_pool", 'check_stage("{name}.mean_pool", tmp_path)', SLOT_USE
    ),
}
PROBLEMS = """{"question": "When was the first telegraph line opened?", "answer": "1844"}
{"question": "When was the first telephone call made?", "answer": "1876"}
"""
TINY_RL = '{"batch_size": 4, "num_generations": 2, "max_steps": 1, "max_completion_length": 8}'


def main(args: argparse.Namespace) -> int:
    """Write the package and print what to do with it."""
    console = Console()
    if not re.fullmatch(r"[a-z][a-z0-9_]*", args.name):
        raise StageError(
            f"{args.name!r} cannot be the name of a plugin: it is a name in Python and on the "
            "command line, so write small letters, digits and underscores, such as my_filter"
        )
    folder = Path(args.folder or f"llmstages-{args.name.replace('_', '-')}")
    if folder.exists() and any(folder.iterdir()):
        raise StageError(f"{folder} exists and is not empty; choose another with --folder")
    for name, text in package_files(args.kind, args.name).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        console.say(f"wrote {path}")
    use = KINDS[args.kind].use.format(name=args.name)
    console.say(f"\nnext: cd {folder} && pip install -e . && pytest, then\n  {use}")
    return 0


def package_files(kind: str, name: str) -> dict[str, str]:
    """File name -> text of a plugin package.

    Args:
        kind: one of KINDS.
        name: of the plugin, in snake case.
    """
    chosen = KINDS[kind]
    module = f"llmstages_{name}"
    words = {
        "name": name,
        "Class": "".join(word.capitalize() for word in name.split("_")),
        "module": module,
        "package": module.replace("_", "-"),
        "kind": kind,
        "registered": chosen.registered.format(name=name),
        "listed": _listed(kind, name),
        "use": chosen.use.format(name=name),
        "entry_points": _entry_points(kind, name, module),
    }
    examples = {"problems.jsonl": PROBLEMS} if kind == "grader" else {}
    return {
        **examples,
        "pyproject.toml": _fill("pyproject.toml.txt", words),
        "README.md": _fill("README.md.txt", words),
        f"{module}.py": _fill(f"{kind}.py.txt", words),
        f"tests/test_{name}.py": _test(kind, name),
    }


def _fill(template: str, words: Mapping[str, str]) -> str:
    """A template with ``{word}`` replaced; other braces stay as they are."""
    text = (resources.files("llmstages.cli") / "new_plugin" / template).read_text("utf-8")
    for word, value in words.items():
        text = text.replace("{" + word + "}", value)
    return text


def _listed(kind: str, name: str) -> str:
    """What ``llmstages list`` takes to show the plugin."""
    if kind == "slot":
        return name
    return "rl" if kind == "rl" else KINDS[kind].group


def _entry_points(kind: str, name: str, module: str) -> str:
    chosen = KINDS[kind]
    class_name = "".join(word.capitalize() for word in name.split("_"))
    registered = chosen.registered.format(name=name)
    text = f'[project.entry-points."llmstages.{chosen.group}"]\n'
    text += f'"{registered}" = "{module}:{class_name}"\n'
    if kind == "slot":
        text += '\n[project.entry-points."llmstages.artifact_kinds"]\n'
        text += f'embeddings = "{module}:EMBEDDINGS"\n'
    return text


def _test(kind: str, name: str) -> str:
    call = KINDS[kind].check.format(name=name)
    function = call.partition("(")[0]
    argument = "tmp_path" if "tmp_path" in call else ""
    setting = f"\nTINY = {TINY_RL}\n" if "TINY" in call else ""
    lines = [
        f'"""{name} keeps its contract."""',
        "",
        f"from llmstages.testing import {function}",
        setting,
        "",
        f"def test_{name}_keeps_its_contract({argument}):",
        f"    {call}",
        "",
    ]
    return "\n".join(lines)
