"""An artifact from Python: its metrics, its record, its content."""

import json

import pytest

import llmstages
from llmstages import Artifact, run, step
from llmstages.core.errors import StageError
from llmstages.data import tables


def test_metrics_and_record_are_those_of_the_step(toys):
    pages = run([step("pages", "toypages.count", {"count": 2})], quiet=True)["pages"]
    assert pages.metrics == {"pages": 2}
    assert pages.record["config"]["count"] == 2
    assert Artifact("mine", "documents", toys, "x").metrics == {}


def test_a_table_is_a_dataset(tmp_path):
    tables.save([{"id": "a", "url": "", "text": "one"}], tmp_path / "data")
    assert Artifact("corpus", "corpus", tmp_path, "x").load()["text"][:] == ["one"]


@pytest.mark.parametrize("kind", ["tokenizer", "model", "reward_model"])
def test_a_model_is_what_transformers_loads(kind, tmp_path):
    from llmstages.testing import tiny_artifact

    loaded = tiny_artifact(kind, tmp_path / kind).load()
    wanted = {"tokenizer": "Tokenizer", "model": "CausalLM", "reward_model": "Classification"}
    assert wanted[kind] in " ".join(base.__name__ for base in type(loaded).__mro__)


def test_scores_are_a_dictionary(tmp_path):
    scores = {"task": {"all": {"sft": {"right": 0.5}}}}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    assert Artifact("evaluate", "scores", tmp_path, "x").load() == scores


def test_a_kind_of_another_package_is_named_with_its_folder(tmp_path):
    with pytest.raises(StageError, match="cannot open an artifact of the kind 'embeddings'"):
        Artifact("embed", "embeddings", tmp_path, "x").load()


def test_dir_shows_the_public_names():
    assert {"run", "step", "Artifact", "__version__"} <= set(dir(llmstages))
    assert "core" not in dir(llmstages)
    assert all(hasattr(llmstages, name) for name in dir(llmstages))
