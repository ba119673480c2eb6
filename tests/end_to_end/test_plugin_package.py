"""The example package, installed by pip: listed with its name, run by override, typos explained."""

from __future__ import annotations

import random
import re
import subprocess
import sys

import pytest

from tests.end_to_end.chain import ROOT, SHRUNK, SMOKE, llmstages
from tests.end_to_end.web import page, write_warc

SHOUTING = (
    "recipe=real",
    "only=corpus",
    "+filters@corpus.filters.shouting=shouting",
    "corpus.filters.shouting.limit=0.2",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder for PYTHONPATH with examples/plugins/llmstages-extras in it."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("extras")
    source = folder / "source"
    source.mkdir()
    for file in (ROOT / "examples/plugins/llmstages-extras").glob(
        "*.*"
    ):  # pip builds in place; the repository stays clean
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    made = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "--target",
            str(folder / "site"),
            str(source),
        ],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    return str(folder / "site")


def test_it_is_listed_with_the_package_that_brought_it(site, tmp_path):
    for slot, name in (("filters", "shouting"), ("rl", "dr_grpo")):
        [line] = [
            line
            for line in llmstages("list", slot, folder=tmp_path, PYTHONPATH=site).out.splitlines()
            if line.split()[:1] == [name]
        ]
        assert "llmstages-extras 0.1.0" in line


def test_its_filter_drops_a_page_that_shouts_and_says_by_which_limit(site, tmp_path):
    from llmstages.data import tables

    calm = page(random.Random(0), "A calm page")
    loud = re.sub(
        r"\b[a-z]{5,}\b(?![^<]*>)",
        lambda word: word[0].upper(),
        page(random.Random(1), "A loud page"),
    )
    write_warc(tmp_path / "two.warc.gz", [calm, loud])
    done = llmstages(
        "run", "--json", *SHOUTING, "pages.path=two.warc.gz", folder=tmp_path, PYTHONPATH=site
    )
    assert done.json["steps"]["corpus"]["metrics"]["kept"] == 1
    [row] = [
        row
        for row in tables.load(tmp_path / "runs/real/corpus/dropped").to_list()
        if row["rule"].startswith("shouting")
    ]
    assert (
        row["url"] == "https://town.example/1"
        and float(row["value"]) > 0.3
        and row["limit"] == "<= 0.2"
    )


def test_its_rl_variant_plans_and_runs_on_the_chain(site, copied):
    folder = copied()
    plan = llmstages("plan", "--json", "recipe=smoke", "rl=dr_grpo", folder=folder, PYTHONPATH=site)
    assert plan.new == {"rl", "evaluate", "report"} and plan.json["steps"]["rl"]["why"].startswith(
        "rl.grpo -> rl.dr_grpo"
    )
    done = llmstages(*SMOKE, "rl=dr_grpo", *SHRUNK, "only=rl", folder=folder, PYTHONPATH=site)
    assert done.new == {"rl"} and done.json["steps"]["rl"]["metrics"]["answers"] == 8


@pytest.mark.parametrize(
    "words, said",
    [
        ((*SHOUTING, "corpus.filters.shouting.limt=1", "pages.path=x.txt"), "Did you mean 'limit'"),
        (("recipe=smoke", "rl=dr_grpo", "rl.learning_rat=1"), "Did you mean 'learning_rate'"),
        (("recipe=smoke", "rl=dr_grop"), "Did you mean 'dr_grpo'"),
    ],
)
def test_typos_in_its_keys_get_a_hint(site, tmp_path, words, said):
    (tmp_path / "x.txt").write_text("text")
    assert said in llmstages("plan", *words, folder=tmp_path, code=2, PYTHONPATH=site).err
