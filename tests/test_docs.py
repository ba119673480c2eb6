"""What the README and the guides show works; end_to_end/test_examples.py runs examples/."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from llmstages.cli.main import _parse, main
from llmstages.core import registry
from llmstages.data.filtering import Document, Drop
from llmstages.pipeline.compose import compose, expand

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SCALING = (ROOT / "docs/scaling.md").read_text()
GUIDE_NAMES = (
    *("sft.md", "finetune.md", "posttrain.md", "tools.md"),
    *("synthesize.md", "store.md", "export.md", "studio.md", "serve.md"),
)
GUIDES = [SCALING, *((ROOT / "docs" / name).read_text() for name in GUIDE_NAMES)]
BLOCKS = re.findall(
    r"^```(\w*)\n(.*?)^```", "".join([README, *GUIDES[1:]]), re.MULTILINE | re.DOTALL
)


def commands() -> list[str]:
    """Commands of the bash blocks of the README and the guides, without comments."""
    text = "\n".join(body for language, body in BLOCKS if language == "bash").replace("\\\n", " ")
    return [
        line.split("  #")[0].strip() for line in text.splitlines() if line.startswith("llmstages ")
    ]


def presets() -> list[str]:
    return sorted(
        f"{path.parent.name}={path.stem}"
        for path in (ROOT / "conf").glob("*/*.yaml")
        if path.parent.name not in ("recipe", "launch", "hardware")
    )


def test_the_readme_is_short_and_starts_with_how_to_run_it():
    assert README.count("\n") <= 120
    assert "llmstages run" in "\n".join(README.splitlines()[:20]) and "pip install" in "\n".join(
        README.splitlines()[:20]
    )
    assert any(language == "bash" for language, _ in BLOCKS) and commands()


@pytest.fixture
def extras(install) -> None:
    """The package that the README tells to install."""
    folder = ROOT / "examples/plugins/llmstages-extras"
    groups = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]
    points = "".join(
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in names.items())
        for group, names in groups.items()
    )
    install("llmstages_extras", points, (folder / "llmstages_extras.py").read_text())


def write_model(folder: Path) -> None:
    """The small files of a model, which are all that ``plan`` reads."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama2", "vocab_size": 100}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")


def write_shown_files() -> None:
    """The YAML files of ./conf that a guide shows, and the reward that it speaks of."""
    for language, body in BLOCKS:
        shown = re.match(r"# (conf/\S+\.yaml)\n", body)
        if language == "yaml" and shown:
            file = Path(shown[1])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(body.partition("\n")[2])
    Path("my_reward.py").write_text("def score(prompts, completions, rows):\n    return []\n")


@pytest.mark.parametrize("line", commands())
def test_every_command_shown_is_understood(line, extras, tmp_path, monkeypatch, capsys):
    """Its flags exist and its overrides plan; tests in end_to_end/ run them."""
    monkeypatch.chdir(tmp_path)
    write_shown_files()
    for name in re.findall(r"(?:model\.path|steps\.\w+\.(?:policy|model))=(\S+)", line):
        write_model(Path(name))
    for name in re.findall(
        r"\w+\.(?:path|guideline|others)=(\S+)", line
    ):  # stands for a file of the reader's own
        if not Path(name).exists():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text("{}")
    args = _parse(shlex.split(line, comments=True)[1:])
    if hasattr(args, "overrides"):
        step = [f"only={args.step}"] if getattr(args, "step", None) else []
        for overrides in expand(args.overrides):
            assert main(["plan", *overrides, *step]) == 0, capsys.readouterr().err


def printed() -> list[tuple[str, list[str]]]:
    """(command, lines under it) of the guide's text blocks."""
    blocks = "".join(re.findall(r"^```text\n(.*?)^```", SCALING, re.MULTILINE | re.DOTALL))
    return [
        (block.splitlines()[0], block.splitlines()[1:])
        for block in blocks.split("$ llmstages ")[1:]
    ]


@pytest.mark.parametrize(
    "command, lines", printed(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_guide_shows_what_the_planner_prints(command, lines, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)) == 0 and lines
    out = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for line in lines:
        assert line in out, "\n".join(out)


def test_the_guides_are_short():
    assert all(text.count("\n") <= 120 for text in GUIDES) and printed()


@pytest.mark.parametrize("choice", presets())
def test_every_preset_composes(choice, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    slot, _, name = choice.partition("=")
    if slot in registry.component_groups() and slot not in registry.slots():
        assert compose(
            [f"extractors@corpus.extractors.html={name}"]
            if slot == "extractors"
            else [f"+{slot}@corpus.{slot}.preset={name}"]
        )
        return
    assert compose([choice]).slots[slot]["stage"].startswith(f"{slot}.")


def plugins() -> list[str]:
    return [body for language, body in BLOCKS if language == "python" and "class " in body]


def test_the_readme_shows_a_plugin():
    assert plugins()


@pytest.mark.parametrize("body", plugins(), ids=lambda body: re.findall(r"class (\w+)", body)[0])
def test_a_plugin_of_the_readme_works_when_saved_to_a_file(body, install):
    name = re.findall(r"^class (\w+)", body, re.MULTILINE)[0]
    install("readme_plugin", f"[llmstages.filters]\nfrom_readme = readme_plugin:{name}\n", body)
    judge = registry.load_component("filters", {"use": "from_readme"})
    calm, loud = (
        Document(text, "", text) for text in ("A page that speaks softly.", "A PAGE THAT SHOUTS!")
    )
    [keep, drop] = judge.judge([calm, loud])
    assert keep is None and isinstance(drop, Drop) and drop.limit and registry.describe(type(judge))


def test_what_the_guide_on_results_shows_of_python_runs(tmp_path, monkeypatch):
    text = (ROOT / "docs/store.md").read_text()
    [body] = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(body, names)
    artifact = names["artifact"]
    assert artifact.metrics["pages"] == len(artifact.load()) > 100


def test_a_reward_and_a_preset_without_a_package_plan_as_shown(tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs/plugins.md").read_text()
    section = text.split("## Without a package")[1].split("\n## ")[0]
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```", section, re.MULTILINE | re.DOTALL))
    monkeypatch.chdir(tmp_path)
    Path("my_reward.py").write_text(blocks["python"])
    Path("conf/rl").mkdir(parents=True)
    Path("conf/rl/fast.yaml").write_text(blocks["yaml"])
    words = shlex.split(blocks["bash"])[2:]
    for overrides in (words, ["recipe=smoke", "only=rl", "rl=fast"]):
        assert main(["plan", *overrides]) == 0, capsys.readouterr().err
    reward = registry.load_component("rewards", {"use": "./my_reward.py:score"})
    assert reward.score([[], []], ["It is 12.", "13"], {"answer": ["12", "12"]}) == [1.0, 0.0]
