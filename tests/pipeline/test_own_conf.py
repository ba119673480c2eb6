"""A recipe, a preset and a component of one's own, without a package."""

import os
from pathlib import Path

import pytest

from llmstages.core.errors import StageError
from llmstages.core.registry import load_component
from llmstages.pipeline import compose_cache
from llmstages.pipeline.compose import compose, origins
from llmstages.pipeline.overrides import choose_components

RECIPE = """# @package _global_
# My numbers.
defaults:
  - /toypages: count
  - /toycorpus: few
steps:
  toypages: {}
  toycorpus: {documents: toypages}
"""
PRESET = """# Only small ones.
defaults:
  - clean
  - /filters@filters.mine: ./keep.py:small
  - _self_
rate: 0.5
"""
KEEP = "def small(number):\n    return number < 2\n"


@pytest.fixture
def own(toys):
    """A folder with a recipe, a preset and a filter of one's own."""
    for folder, name, text in (
        ("conf/recipe", "mine.yaml", RECIPE),
        ("conf/toycorpus", "few.yaml", PRESET),
        (".", "keep.py", KEEP),
    ):
        (toys / folder).mkdir(parents=True, exist_ok=True)
        (toys / folder / name).write_text(text)
    return toys


def test_they_are_found_listed_and_run(own, cli):
    done = cli("run", "--json", "recipe=mine")
    assert done.json["steps"]["toycorpus"]["metrics"]["kept"] == 2
    assert origins(["recipe=mine"])["toycorpus.rate"] == "conf/toycorpus/few.yaml"
    rows = [line.split() for line in cli("list", "recipe").out.splitlines()]
    assert ["mine", "(./conf)", "My", "numbers."] in rows
    assert "few (./conf)" in cli("list").out
    assert "Did you mean 'mine'" in cli("plan", "recipe=mien").err


def test_an_edit_of_the_file_runs_the_step_again_and_says_why(own, cli):
    cli("run", "recipe=mine")
    assert cli("plan", "--json", "recipe=mine").json["steps"]["toycorpus"]["state"] == "reused"
    (own / "keep.py").write_text(KEEP.replace("2", "1"))
    step = cli("plan", "--json", "recipe=mine").json["steps"]["toycorpus"]
    assert step["why"].startswith("the file of filters.mine changed (nearest toycorpus-")
    assert cli("run", "--json", "recipe=mine").json["steps"]["toycorpus"]["metrics"]["kept"] == 1


def test_the_folder_of_the_file_does_not_matter(own, cli):
    cli("run", "recipe=mine")
    (own / "elsewhere").mkdir()
    (own / "keep.py").rename(own / "elsewhere" / "keep.py")
    preset = own / "conf/toycorpus/few.yaml"
    preset.write_text(PRESET.replace("./keep.py", "elsewhere/keep.py"))
    assert cli("plan", "--json", "recipe=mine").json["steps"]["toycorpus"]["state"] == "reused"


def test_a_file_edited_during_the_run_is_noticed_before_its_step(own, cli):
    text = (
        "from pathlib import Path\n"
        "def small(number):\n"
        "    Path('late.py').write_text('def keep(number):\\n    return False\\n')\n"
        "    return True\n"
    )
    (own / "keep.py").write_text(text)
    (own / "late.py").write_text("def keep(number):\n    return True\n")
    done = cli(
        "run",
        "--json",
        "recipe=mine",
        "+toycorpus@second=clean",
        "+steps.second={}",
        "+steps.second.documents=toypages",
        "second.filters.late=./late.py:keep",
    )
    assert done.code == 1
    assert done.json["steps"]["toycorpus"]["state"] == "new"
    assert "the file of filters.late changed since this run was planned" in done.json["error"]


def test_a_name_that_is_taken_is_refused_where_it_is_chosen(own):
    (own / "conf/recipe/story.yaml").write_text(RECIPE)
    (own / "conf/toymodel").mkdir()
    (own / "conf/toymodel/plain.yaml").write_text("defaults: [eager]\n")
    assert compose(["recipe=mine"]).steps
    with pytest.raises(StageError, match="llmstages has a recipe/story too. Rename your file"):
        compose([])
    with pytest.raises(StageError, match="has a toymodel/plain too"):
        compose(["recipe=toy"])


def test_a_conf_folder_of_another_program_does_no_harm(toys):
    (toys / "conf/db").mkdir(parents=True)
    (toys / "conf/db/mysql.yaml").write_text("host: here\n")
    (toys / "conf/config.yaml").write_text("defaults: [db: mysql]\n")
    assert "db" not in compose(["recipe=toy"]).slots


@pytest.mark.parametrize("changed", ["conf/toycorpus/few.yaml", "keep.py"])
def test_what_is_remembered_follows_the_files(own, changed, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    entries = tmp_path / "cache/llmstages/compose"
    compose_cache.compose(["recipe=mine"])
    compose_cache.compose(["recipe=mine"])
    assert len(list(entries.glob("*.json"))) == 1
    os.utime(own / changed, (1, 1))
    compose_cache.compose(["recipe=mine"])
    assert len(list(entries.glob("*.json"))) == 2


def test_the_short_form_chooses_a_component(toys):
    (toys / "keep.py").write_text(KEEP)
    for override in (
        "toycorpus.filters.mine=./keep.py:small",
        "+toycorpus.filters.mine=./keep.py:small",
        "+filters@toycorpus.filters.mine=./keep.py:small",
        "+toycorpus.filters.mine={use: ./keep.py:small}",
    ):
        filters = compose(["recipe=toy", override]).slots["toycorpus"]["filters"]
        assert filters["mine"]["use"] == "./keep.py:small"
        assert list(filters) == ["toy_short", "mine"]
    named = compose(["recipe=toy", "toycorpus.filters.again=toy_short"]).slots["toycorpus"]
    assert named["filters"]["again"]["most"] == 100


def test_only_components_are_rewritten():
    words = ["rl.rewards.mine=null", "rl.rewards.a.weight=2", "rl.steps.x=exact_answer", "seed=1"]
    assert choose_components(words) == words


def test_a_typo_in_a_file_is_one_message(toys, cli):
    done = cli("plan", "recipe=toy", "toycorpus.filters.mine=./kep.py:small")
    assert done.code == 2
    assert "cannot read kep.py" in done.err


@pytest.mark.parametrize(
    "name", ["{}/keep.py", "../{0.name}/keep.py", "~/keep.py", "./it's é x.py"]
)
def test_a_path_may_be_any(name, toys, monkeypatch):
    monkeypatch.setenv("HOME", str(toys))
    path = name.format(toys)
    file = toys / Path(path).name
    file.write_text(KEEP)
    override = f"toycorpus.filters.mine={path}:small"
    use = compose(["recipe=toy", override]).slots["toycorpus"]["filters"]["mine"]["use"]
    assert load_component("filters", {"use": use}).judge([1, 2])[0] is None


def test_a_file_that_would_not_be_watched_is_not_remembered(toys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    entries = tmp_path / "cache/llmstages/compose"
    for name in ("x.py", "a x.py"):
        (toys / name).write_text(KEEP)
    compose_cache.compose(["recipe=toy", "toycorpus.filters.mine=./x.py:small"])
    assert len(list(entries.glob("*.json"))) == 1
    compose_cache.compose(["recipe=toy", "toycorpus.filters.mine=./a x.py:small"])
    assert len(list(entries.glob("*.json"))) == 1
