"""model.files: models of others as artifacts, in their dtype, and what is refused before work."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmstages.core.errors import StageError
from llmstages.plugins.model.files import Files, FilesConfig
from llmstages.plugins.sft.chat import Chat, ChatConfig
from tests.tiny import perform, saved, saved_model
from tests.train.sft_step import short_dialogues


@pytest.fixture
def base(tmp_path):
    """The folder of a tiny model in bfloat16, with files that are not part of it."""
    artifact = saved_model(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(artifact.path, dtype=torch.bfloat16)
    model.save_pretrained(artifact.path)
    (artifact.path / "README.md").write_text("a model")
    (artifact.path / "training_args.bin").write_bytes(b"0")
    return artifact.path


def adopt(tmp_path, **values):
    return perform(Files, tmp_path / "model", FilesConfig(**values))


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()


def test_a_folder_is_taken_as_it_is(tmp_path, base):
    made, metrics = adopt(tmp_path, path=str(base))
    assert not (made.path / "README.md").exists()
    assert not (made.path / "training_args.bin").exists()
    expected = weights(base)
    for name, tensor in weights(made.path).items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, expected[name])
    assert metrics["chat_template"] == 1
    assert metrics["parameters"] == sum(
        p.numel() for p in AutoModelForCausalLM.from_pretrained(base).parameters()
    )


def test_weights_in_bin_files_become_safetensors(tmp_path, base):
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    (base / "model.safetensors").unlink()
    torch.save(model.state_dict(), base / "pytorch_model.bin")
    made, _ = adopt(tmp_path, path=str(base))
    assert not list(made.path.glob("*.bin"))
    for name, tensor in weights(made.path).items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_an_adapter_is_merged_into_its_base(tmp_path, base):
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    ids = torch.arange(5, 15)[None]
    expected = adapted(input_ids=ids).logits

    made, _ = adopt(tmp_path, path=str(tmp_path / "adapter"), base=str(base))
    merged = AutoModelForCausalLM.from_pretrained(made.path, dtype=torch.bfloat16)
    before = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    changed = (before(input_ids=ids).logits - expected).abs().mean()
    assert (merged(input_ids=ids).logits - expected).abs().mean() < changed / 10


def test_an_adapter_without_its_base_is_refused(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    with pytest.raises(StageError, match=r"adapter of the model 'org/base'.*model.base=FOLDER"):
        adopt(tmp_path, path=str(folder))


def spoil_config(base, **values):
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, **values}))


MISTAKES = {
    "no config": (lambda base: (base / "config.json").unlink(), "no config.json in this folder"),
    "broken config": (lambda base: (base / "config.json").write_text("{"), "not valid JSON"),
    "an encoder-decoder": (
        lambda base: spoil_config(base, is_encoder_decoder=True),
        "encoder-decoder",
    ),
    "a classifier": (
        lambda base: spoil_config(base, architectures=["LlamaForSequenceClassification"]),
        "not a causal language model",
    ),
    "code of its own": (
        lambda base: spoil_config(base, model_type="", auto_map={"AutoModel": "m.M"}),
        "code of its own",
    ),
    "no tokenizer": (lambda base: (base / "tokenizer.json").unlink(), "model.tokenizer=FOLDER"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_not_a_model_is_refused_by_plan(base, mistake):
    spoil, reason = MISTAKES[mistake]
    spoil(base)
    with pytest.raises(StageError, match=reason):
        Files().validate(FilesConfig(path=str(base)), "model")


def test_weights_that_are_cut_off_or_missing_are_refused(tmp_path, base):
    file = base / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StageError, match="may be cut off"):
        adopt(tmp_path, path=str(base))
    file.write_bytes(whole)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(StageError, match="1 of 2 weight files are missing"):
        perform(Files, tmp_path / "again", FilesConfig(path=str(base)))


def test_the_tokenizer_of_another_model_is_refused(tmp_path, base):
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([f"<{n}>" for n in range(500)])
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(StageError, match="tokenizer of another model"):
        adopt(tmp_path, path=str(base), tokenizer=str(tmp_path / "other"))


def test_plan_knows_the_sizes(base):
    config = FilesConfig(path=str(base))
    facts = Files().estimate(config, {})
    assert "bfloat16, with a chat template" in facts["summary"]
    total = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(base).parameters())
    assert facts["model"].parameters() == total


@pytest.mark.parametrize("adapters", [0, 4])
def test_what_came_in_bfloat16_goes_out_so(tmp_path, base, adapters):
    made, _ = adopt(tmp_path, path=str(base))
    rows = [{"messages": messages} for messages in short_dialogues(8)]
    config = ChatConfig(
        max_length=96,
        batch_size=4,
        epochs=6,
        packing=False,
        lora_r=adapters,
        keep_adapter=bool(adapters),
    )
    chats = saved(tmp_path / "chats", "dialogues", rows)
    tuned, _ = perform(Chat, tmp_path / "sft", config, model=made, dialogues=(chats,), corpus=None)
    after = weights(tuned.path)
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    before = weights(made.path)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in after.items())
    size = (tuned.path / "model.safetensors").stat().st_size
    assert size < 1.1 * (made.path / "model.safetensors").stat().st_size
    if adapters:
        again, _ = perform(
            Files,
            tmp_path / "again",
            FilesConfig(path=str(tuned.path / "adapter"), base=str(made.path)),
        )
        ids = torch.arange(5, 15)[None]
        first = AutoModelForCausalLM.from_pretrained(tuned.path, dtype=torch.float32)
        second = AutoModelForCausalLM.from_pretrained(again.path, dtype=torch.float32)
        difference = first(input_ids=ids).logits - second(input_ids=ids).logits
        assert difference.abs().mean() < 0.01


def test_links_share_the_bytes(tmp_path, base):
    made, _ = adopt(tmp_path, path=str(base), link=True)
    assert (made.path / "model.safetensors").samefile(base / "model.safetensors")
    shutil.rmtree(base)
    assert weights(made.path)
