"""A model artifact becomes a folder that stands alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llmstages.convert.hf_folder import export_adapter, export_folder, stored_dtype
from llmstages.core.errors import StageError
from llmstages.testing.tiny import tiny_artifact
from tests.convert.models import write_model

RUN_FILES = ("record.json", "log.jsonl", "checks.json", "samples.jsonl")


@pytest.fixture
def artifact(tmp_path) -> Path:
    folder = write_model(tmp_path / "model", attention_bias=True)
    for name in RUN_FILES:
        (folder / name).write_text("{}")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/model.safetensors").write_bytes(b"x")
    (folder / "LICENSE").write_text("Apache")
    (folder / "modeling_mine.py").write_text("")
    return folder


def logits(folder: Path):
    import torch
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder)(torch.arange(50)[None]).logits.float()


def test_what_belongs_to_the_run_stays_behind(artifact, tmp_path):
    lines: list[str] = []
    steps: list[float] = []
    written = export_folder(artifact, tmp_path / "out", say=lines.append, advance=steps.append)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert not names & {*RUN_FILES, "checkpoints"}
    assert {"config.json", "model.safetensors", "tokenizer.json", "LICENSE"} <= names
    assert {"modeling_mine.py", "chat_template.jinja", "generation_config.json"} <= names
    assert written["left_out"] == 5
    assert "5 files are not part of the model" in lines[0]
    assert sum(steps) == pytest.approx(1)
    assert (logits(artifact) == logits(tmp_path / "out")).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_weights_get_the_type(dtype, artifact, tmp_path):
    from transformers import AutoModelForCausalLM

    export_folder(artifact, tmp_path / "out", dtype)
    assert stored_dtype(tmp_path / "out") == dtype
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == dtype
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert str(model.dtype) == f"torch.{dtype}"
    assert (logits(artifact) - logits(tmp_path / "out")).abs().max() < 0.2


def test_links_become_files_that_others_may_read(artifact, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in artifact.iterdir():
        (linked / path.name).symlink_to(path)
    os.chmod(artifact / "model.safetensors", 0o600)
    before = os.umask(0o022)
    try:
        export_folder(linked, tmp_path / "out", "bfloat16")
    finally:
        os.umask(before)
    for path in (tmp_path / "out").iterdir():
        assert not path.is_symlink()
        assert path.stat().st_mode & 0o777 == 0o644, path.name


def test_several_files_of_weights_keep_their_index(artifact, tmp_path):
    from transformers import AutoModelForCausalLM

    parts = tmp_path / "parts"
    AutoModelForCausalLM.from_pretrained(artifact).save_pretrained(parts, max_shard_size="60KB")
    export_folder(parts, tmp_path / "out", "bfloat16")
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    files = list((tmp_path / "out").glob("model-*.safetensors"))
    assert index["metadata"]["total_size"] == sum(file.stat().st_size for file in files)
    assert logits(tmp_path / "out").isfinite().all()


def test_a_cache_switched_off_by_training_is_on_again(artifact, tmp_path):
    config = json.loads((artifact / "config.json").read_text())
    (artifact / "config.json").write_text(json.dumps({**config, "use_cache": False}))
    export_folder(artifact, tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["use_cache"] is True


def test_numbers_beyond_float16_are_refused(artifact, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = load_file(artifact / "model.safetensors")
    weights["model.norm.weight"] += 1e6
    save_file(weights, artifact / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError, match=r"model.norm.weight .* --dtype bfloat16"):
        export_folder(artifact, tmp_path / "out", "float16")


@pytest.mark.parametrize(
    "names, message",
    [
        (["config.json", "pytorch_model.bin"], "no weights in safetensors"),
        (["notes.txt"], "neither a model"),
    ],
)
def test_another_folder_is_refused(names, message, tmp_path):
    (tmp_path / "x").mkdir()
    for name in names:
        (tmp_path / "x" / name).write_text("{}")
    with pytest.raises(StageError, match=message):
        export_folder(tmp_path / "x", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_is_a_folder_too(tmp_path):
    from transformers import AutoTokenizer

    artifact = tiny_artifact("tokenizer", tmp_path / "tokenizer")
    export_folder(artifact.path, tmp_path / "out")
    before = AutoTokenizer.from_pretrained(artifact.path)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab() == before.get_vocab()
    assert not (tmp_path / "out/view.json").exists()


def test_the_adapter_alone(tmp_path):
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    base = write_model(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    artifact = write_model(tmp_path / "artifact")
    adapted.save_pretrained(artifact / "adapter")
    export_adapter(artifact, tmp_path / "out", str(base))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "model.safetensors" not in names
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= names
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    plain = AutoModelForCausalLM.from_pretrained(base)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        expected = adapted.eval()(ids).logits
        loaded = PeftModel.from_pretrained(plain, str(tmp_path / "out")).eval()
        assert torch.allclose(loaded(ids).logits, expected, atol=1e-5)


def test_a_step_without_an_adapter_says_how_to_keep_it(artifact, tmp_path):
    with pytest.raises(StageError, match="keep_adapter=true"):
        export_adapter(artifact, tmp_path / "out", "base")
