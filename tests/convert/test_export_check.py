"""The comparison of an exported model with its source finds what a conversion can break."""

from __future__ import annotations

import json

import pytest

from llmstages.convert import export_check
from llmstages.convert.export_check import Continuations, compare, require
from llmstages.convert.gguf_writer import write_gguf
from llmstages.convert.hf_folder import export_folder
from llmstages.core.errors import StageError
from tests.convert.models import write_model

pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("check") / "model", attention_bias=True)


@pytest.fixture(scope="module")
def source(model):
    return export_check.continue_prompts(model)


def test_an_exact_copy_gives_the_same_tokens(model, source, tmp_path):
    export_folder(model, tmp_path / "out")
    agreement = export_check.check_folder(source, tmp_path / "out")
    require(agreement, exact=True)
    assert agreement.total == agreement.same_replies == 20
    assert str(agreement) == "20 of 20 prompts give the same tokens (transformers)"


def test_a_gguf_file_is_read_back_where_llama_cpp_is_missing(model, source, tmp_path, monkeypatch):
    monkeypatch.setattr(export_check, "has_llama_cpp", lambda: False)
    write_gguf(model, tmp_path / "x.gguf", "float32")
    agreement = export_check.check_gguf(source, tmp_path / "x.gguf", model)
    require(agreement, exact=True)
    assert "read back by transformers" in str(agreement)


def test_llama_cpp_agrees(model, source, tmp_path):
    pytest.importorskip("llama_cpp", reason="pip install llama-cpp-python")
    write_gguf(model, tmp_path / "x.gguf", "float32")
    agreement = export_check.check_gguf(source, tmp_path / "x.gguf", model)
    assert agreement.same_prompts == agreement.total
    assert agreement.same_first >= 18


@pytest.mark.parametrize("broken", ["q_proj.bias", "rope_theta"])
def test_a_wrong_conversion_is_refused(broken, model, source, tmp_path):
    from safetensors.torch import load_file, save_file

    export_folder(model, tmp_path / "out")
    if broken == "rope_theta":
        path = tmp_path / "out/config.json"
        config = json.loads(path.read_text())
        config["rope_parameters"]["rope_theta"] = 2.0
        path.write_text(json.dumps(config))
    else:
        weights = load_file(tmp_path / "out/model.safetensors")
        for name in weights:
            if name.endswith(broken):
                weights[name] *= 50
        save_file(weights, tmp_path / "out/model.safetensors", metadata={"format": "pt"})
    agreement = export_check.check_folder(source, tmp_path / "out")
    assert agreement.same_replies < 20
    with pytest.raises(StageError, match="does not say what its source says"):
        require(agreement, exact=True)


def test_a_base_model_continues_texts(tmp_path):
    from transformers import AutoTokenizer

    folder = write_model(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (folder / "chat_template.jinja").unlink()
    continuations = export_check.continue_prompts(folder)
    assert continuations.prompts[0][0] == tokenizer.bos_token_id
    assert tokenizer.decode(continuations.prompts[0][1:]) == export_check.PROMPTS[0]


@pytest.mark.parametrize(
    "prompts, replies, exact, accepted",
    [
        ([[1], [2]], [[5, 6], [7]], True, True),
        ([[1], [2]], [[5, 9], [7]], True, False),  # one token of many differs
        ([[1], [2]], [[5, 9], [7]], False, True),  # rounding may do that
        ([[1], [2]], [[5, 6], [8]], False, True),
        ([[1], [2]], [[9, 6], [8]], False, False),  # rounding does not do that
        ([[1], [3]], [[5, 6], [7]], False, False),  # the tokenizer is another one
    ],
)
def test_what_is_accepted(prompts, replies, exact, accepted):
    source = Continuations([[1], [2]], [[5, 6], [7]])
    agreement = compare(source, Continuations(prompts, replies), "a test")
    if accepted:
        require(agreement, exact)
    else:
        with pytest.raises(StageError):
            require(agreement, exact)
