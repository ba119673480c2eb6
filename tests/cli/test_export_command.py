"""``llmstages export``: results of steps as files that other programs read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llmstages.cli.main import main
from llmstages.convert import export_check
from llmstages.data import tables
from llmstages.testing.tiny import tiny_artifact
from tests.convert.models import write_model


def record(step: str, kind: str, **changes) -> dict:
    stages = {"model": "sft.chat", "scores": "evaluate.tasks"}
    return {
        "step": step,
        "stage": stages.get(kind, f"{kind}.files"),
        "kind": kind,
        "version": "1",
        "fingerprint": "f00",
        "config": {},
        "identity": {"config": {}, "inputs": {}},
        "inputs": {},
        "metrics": {"rows": 4},
        "seconds": 2.0,
        "processes": 1,
        "versions": {},
        "finished": 1.0,
        **changes,
    }


def put(store: Path, step: str, kind: str, folder: Path | None = None, **changes) -> Path:
    """A finished step in the store."""
    target = store / f"{step}-{changes.get('fingerprint', 'f00')}"
    if folder:
        folder.rename(target)
    else:
        tiny_artifact(kind, target)
    (target / "record.json").write_text(json.dumps(record(step, kind, **changes)))
    return target


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    """An empty folder with a store of a model and data, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "store"
    store.mkdir()
    for kind in ("documents", "corpus", "dialogues", "tokenizer"):
        put(store, kind, kind)
    folder = write_model(tmp_path / "model")
    inputs = {"dialogues": ["dialogues"]}
    identity = {"config": {}, "inputs": {"dialogues": [["dialogues", "f00"]]}}
    put(store, "sft", "model", folder, inputs=inputs, identity=identity)
    return store


def export(*words: str) -> int:
    return main(["export", *words])


def test_a_model_becomes_a_folder_with_a_card(store, capsys):
    from transformers import AutoModelForCausalLM

    assert export("sft", "--to", "out", "--dtype", "bfloat16", "--license", "mit") == 0
    out = capsys.readouterr().out
    assert "of 20 prompts give the same tokens (transformers)" in out
    assert "llmstages push out ORG/NAME" in out
    model = AutoModelForCausalLM.from_pretrained("out")
    assert str(model.dtype) == "torch.bfloat16"
    card = Path("out/README.md").read_text()
    assert "license: mit" in card
    assert "| dialogues | dialogues.files | made by the stage itself | rows 4 |" in card
    assert not Path("out/record.json").exists()
    assert not list(Path().glob(".*part"))
    modes = {path.stat().st_mode & 0o777 for path in Path("out").iterdir()}
    umask = os.umask(0)
    os.umask(umask)
    assert modes == {0o666 & ~umask}


def test_only_evaluations_of_this_very_model_are_in_its_card(store):
    def evaluation(name: str, fingerprint: str, value: float) -> None:
        folder = store / f"{name}-1"
        folder.mkdir()
        scores = {"facts": {"all": {"sft": {"right": value}, "other": {"right": 0.123}}}}
        (folder / "scores.json").write_text(json.dumps(scores))
        identity = {"config": {}, "inputs": {"models": [["sft", fingerprint]]}}
        facts = record(name, "scores", identity=identity, inputs={"models": ["sft"]})
        (folder / "record.json").write_text(json.dumps(facts))

    evaluation("evaluate", "f00", 0.75)
    evaluation("old_evaluate", "bad", 0.25)
    assert export("sft", "--to", "out", "--no-check") == 0
    card = Path("out/README.md").read_text()
    assert "| facts | all | right | 0.75 |" in card
    assert "0.25" not in card
    assert "0.123" not in card


@pytest.mark.parametrize("dtype", ["", "q8_0", "f32"])
def test_a_model_becomes_gguf(dtype, store, capsys, monkeypatch):
    pytest.importorskip("gguf")
    from llmstages.convert.gguf_reader import gguf_facts

    monkeypatch.setattr(export_check, "has_llama_cpp", lambda: False)
    options = ["--dtype", dtype] if dtype else []
    assert export("sft", "--to", "deep/out.gguf", *options, "--check") == 0
    out = capsys.readouterr().out
    assert "of 20 prompts give the same tokens (read back by transformers" in out
    assert "llama-cli -m deep/out.gguf" in out
    assert gguf_facts(Path("deep/out.gguf"))["architecture"] == "llama"
    assert [path.name for path in Path("deep").iterdir()] == ["out.gguf"]


def test_without_llama_cpp_gguf_is_said_to_be_unchecked(store, capsys, monkeypatch):
    pytest.importorskip("gguf")
    monkeypatch.setattr(export_check, "has_llama_cpp", lambda: False)
    assert export("sft", "--to", "out.gguf") == 0
    assert "not checked: llama-cpp-python is not installed" in capsys.readouterr().out


def test_a_conversion_that_went_wrong_leaves_nothing(store, capsys, monkeypatch):
    wrong = export_check.Continuations([[1]] * 20, [[1]] * 20)
    monkeypatch.setattr(export_check, "continue_prompts", lambda *_: wrong)
    other = export_check.Continuations([[1]] * 20, [[2]] * 20)
    calls = iter([wrong, other])
    monkeypatch.setattr(export_check, "continue_prompts", lambda *_: next(calls))
    assert export("sft", "--to", "out") == 2
    assert "does not say what its source says: 0 of 20" in capsys.readouterr().err
    assert not Path("out").exists()
    assert not list(Path().glob(".*part"))


@pytest.mark.parametrize("step", ["corpus", "dialogues", "documents"])
@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_data_becomes_a_file(step, ending, store, capsys):
    if (step, ending) == ("documents", "jsonl"):
        assert export(step, "--to", "x.jsonl") == 2
        assert "choose a file that ends in .parquet" in capsys.readouterr().err
        return
    assert export(step, "--to", f"x.{ending}") == 0
    rows = len(tables.load(store / f"{step}-f00" / "data"))
    out = capsys.readouterr().out
    assert f"{step}: {rows} rows" in out
    # The next command is one that works.
    import datasets

    line = next(line for line in out.splitlines() if line.startswith("next"))
    table = eval(line.split(None, 1)[1], {"datasets": datasets})["train"]
    assert len(table) == rows


def test_dropped_pages_with_their_rules(store, capsys):
    assert export("corpus", "--to", "x.jsonl", "--dropped") == 0
    [row] = [json.loads(line) for line in Path("x.jsonl").read_text().splitlines()]
    assert set(row) == set(tables.DROPPED_COLUMNS)
    assert export("dialogues", "--to", "y.jsonl", "--dropped") == 2
    assert "has no table of what was dropped" in capsys.readouterr().err


def test_a_tokenizer_becomes_a_folder(store):
    from transformers import AutoTokenizer

    assert export("tokenizer", "--to", "tok") == 0
    assert len(AutoTokenizer.from_pretrained("tok")) > 256


def test_nothing_is_overwritten_without_being_told(store, capsys):
    Path("out").mkdir()
    Path("out/thesis.txt").write_text("mine")
    Path("x.jsonl").write_text("mine")
    assert export("sft", "--to", "out") == 2
    assert "exists already" in capsys.readouterr().err
    assert export("sft", "--to", "out", "--force", "--no-check") == 2
    assert "something else than a model" in capsys.readouterr().err
    assert Path("out/thesis.txt").read_text() == "mine"
    assert export("corpus", "--to", "x.jsonl") == 2
    assert Path("x.jsonl").read_text() == "mine"
    assert export("corpus", "--to", "x.jsonl", "--force") == 0
    assert export("sft", "--to", "new", "--no-check") == 0
    Path("new/stale.txt").write_text("")
    assert export("sft", "--to", "new", "--no-check", "--force") == 0
    assert not Path("new/stale.txt").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (("nothing", "--to", "x"), "there is no model 'nothing'"),
        (("corpus", "--to", "x"), "give a file that ends in .parquet, .jsonl"),
        (("corpus", "--to", "x.csv"), "give a file that ends in .parquet, .jsonl"),
        (("sft", "--to", "x.csv"), "a model is not written as .csv"),
        (("sft", "--to", "x.parquet"), "sft is a model, not a table"),
        (("tokenizer", "--to", "x.gguf"), "GGUF is for models that write text"),
        (("sft", "--to", "x", "--dropped"), "--dropped is for tables"),
        (("sft", "--to", "x", "--dtype", "q8_0"), "q8_0 is for --to FILE.gguf"),
        (("sft", "--to", "x.gguf", "--dtype", "q3"), "not written as 'q3'"),
        (("sft", "--to", "x", "--adapter"), "keep_adapter=true"),
        (("corpus", "--to", "x.jsonl", "--dtype", "float16"), "--dtype is for models"),
    ],
)
def test_a_wrong_command_is_explained_before_any_work(words, message, store, capsys):
    pytest.importorskip("gguf")
    assert export(*words) == 2
    assert message in capsys.readouterr().err
    assert not Path(words[2]).exists()


def test_the_adapter_of_a_step_names_its_base(store, capsys):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    artifact = store / "sft-f00"
    base = put(store, "pretrain", "model")
    model = AutoModelForCausalLM.from_pretrained(artifact)
    get_peft_model(model, LoraConfig(r=2)).save_pretrained(artifact / "adapter")
    facts = json.loads((artifact / "record.json").read_text())
    facts["inputs"]["model"] = ["pretrain"]
    facts["identity"]["inputs"]["model"] = "f00"
    (artifact / "record.json").write_text(json.dumps(facts))
    assert export("sft", "--to", "lora", "--adapter") == 0
    config = json.loads(Path("lora/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    assert str(base) in capsys.readouterr().out
    assert "library_name: peft" in Path("lora/README.md").read_text()


def test_a_full_disk_is_noticed_before_work(store, capsys, monkeypatch):
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    assert export("sft", "--to", "out") == 2
    assert "its disk has 0.00 GB free" in capsys.readouterr().err
