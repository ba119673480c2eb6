"""SFT: learns a dialogue by heart, gates block what would train something else, LoRA merges."""

from __future__ import annotations

import json

import pytest

from llmstages import generation, training
from llmstages.plugins.sft.chat import Chat, ChatConfig
from llmstages.stage import Context, StageError
from llmstages.tables import message
from tests.tiny import TALK, TEXTS, perform, saved, saved_model

CONFIG = ChatConfig(row=64, epochs=60.0, learning_rate=5e-3, batch_rows=2, warmup=2)


@pytest.fixture
def model(tmp_path):
    return saved_model(tmp_path / "base")


def test_it_learns_the_dialogue_and_stops(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4)
    made, metrics = perform(Chat, tmp_path / "sft", CONFIG, model=model, dialogues=(chats,), corpus=None)
    reply = generation.reply(training.load_model(made, None), training.load_tokenizer(made.path), [TALK[:1]], max_new_tokens=24)[0]
    assert reply.ended and reply.text == TALK[1]["content"]
    assert metrics["loss_last"] < metrics["loss_first"]


def test_replay_brings_documents_back(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4)
    corpus = saved(tmp_path / "corpus", "corpus", [{"id": str(i), "url": "u", "text": t[:60]} for i, t in enumerate(TEXTS)])
    _, metrics = perform(Chat, tmp_path / "sft", ChatConfig(row=64, replay=5), model=model, dialogues=(chats,), corpus=corpus)
    assert metrics["replayed"] == 5


@pytest.mark.parametrize("messages, why", [([message("user", "hi")], "supervised"), ([], "supervised")])
def test_gates_block_dialogues_without_an_answer(tmp_path, model, messages, why):
    rows = [{"messages": messages}] if messages else [{"messages": [message("user", "a"), message("user", "b")]}]
    with pytest.raises(StageError, match=why):
        perform(Chat, tmp_path / "sft", CONFIG, model=model, dialogues=(saved(tmp_path / "chats", "dialogues", rows),), corpus=None)
    assert not all(g["passed"] for g in json.loads((tmp_path / "sft" / "out" / "gates.json").read_text()))


def test_too_long_dialogues_are_dropped_with_a_line_or_refused(tmp_path, model):
    long = [message("user", "the cat sat. " * 60), message("assistant", "yes")]
    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}, {"messages": long}])
    _, metrics = perform(Chat, tmp_path / "drop", ChatConfig(row=64), model=model, dialogues=(chats,), corpus=None)
    assert metrics["dropped_too_long"] == 1 and "1 of 2 dialogues are longer than row=64 tokens (chats:1): dropped" in perform.said[0]
    with pytest.raises(StageError, match="raise error.row"):
        perform(Chat, tmp_path / "error", ChatConfig(row=64, too_long="error"), model=model, dialogues=(chats,), corpus=None)


def test_lora_trains_adapters_and_merges_them(tmp_path, model):
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4)
    made, metrics = perform(Chat, tmp_path / "sft", ChatConfig(row=64, lora=4, epochs=10.0, keep_adapter=True), model=model, dialogues=(chats,), corpus=None)
    before, after = load_file(model.path / "model.safetensors"), load_file(made.path / "model.safetensors")
    assert set(before) == set(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("proj" in name for name in changed)
    linear = [value.shape for name, value in before.items() if name.endswith("proj.weight")]
    assert metrics["trained_parameters"] == sum(4 * (rows + columns) for rows, columns in linear)  # two matrices of rank 4 a layer
    assert any(f"{metrics['trained_parameters']:,} weights of rank-4 adapters" in line for line in perform.said)
    adapted = PeftModel.from_pretrained(training.load_model(model, None), made.path / "adapter").eval()
    ids = torch.tensor([[1, 5, 9, 40, 77, 3]])
    with torch.no_grad():
        merged, apart, plain = (net(ids).logits for net in (training.load_model(made, None).eval(), adapted, training.load_model(model, None).eval()))
    assert torch.allclose(merged, apart, atol=1e-5) and not torch.allclose(merged, plain, atol=1e-3)


def test_loss_on_the_last_answer_alone(tmp_path, model):
    talk = [*TALK, message("user", "Who?"), message("assistant", "Bo", "search"), message("tool", "Bo Li", "search"), message("assistant", "Bo Li.")]
    inputs = {"model": model, "dialogues": (saved(tmp_path / "chats", "dialogues", [{"messages": talk}]),), "corpus": None}
    texts = []
    for loss in ("all", "last"):
        prepared = Chat().prepare(ChatConfig(row=96, loss=loss), Context("sft", tmp_path, tmp_path, inputs))
        row = prepared.rows[0]
        texts.append(prepared.tokenizer.decode([token for token, on in zip(row.ids, row.supervised, strict=True) if on]))
        assert all(g["passed"] for g in prepared.gates)
    assert texts[1] == "<SEARCH_START> Bo<SEARCH_END> Bo Li.<|im_end|>" and texts[0] == " The fox lives near the river.<|im_end|>" + texts[1]


@pytest.mark.parametrize("question, leaked", [("Where does  the FOX live?", True), ("Where does the wolf live?", False),
                                              ("how many legs have a spider and two cats together", True), ("legs have", False)])
def test_questions_of_an_evaluation_are_not_taught(tmp_path, model, question, leaked):
    within = [message("user", "Tell me: how many legs have a spider and two cats together ?"), message("assistant", "16")]
    tests = saved(tmp_path / "tests", "problems", [{"prompt": [message("user", q)], "answer": "x", "role": role} for q, role in ((question, "test"), ("Who?", "train"))])
    inputs = {"model": model, "dialogues": (saved(tmp_path / "chats", "dialogues", [{"messages": [message("user", "Who?"), TALK[1]]}, {"messages": TALK}, {"messages": within}]),),
              "corpus": None, "evaluations": (tests,)}
    prepared = Chat().prepare(ChatConfig(row=96), Context("sft", tmp_path, tmp_path, inputs))
    found = {g["gate"]: g for g in prepared.gates}["dialogues that hold an evaluation question"]
    assert found["passed"] is not leaked and found["rows"] == ((["chats:1"] if "FOX" in question else ["chats:2"]) if leaked else [])


def test_neftune_puts_noise_into_training_and_nowhere_else(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4)
    made = {alpha: perform(Chat, tmp_path / str(alpha), ChatConfig(row=64, epochs=4.0, neftune=alpha), model=model, dialogues=(chats,), corpus=None)[0] for alpha in (0.0, 5.0)}
    weights = [(artifact.path / "model.safetensors").read_bytes() for artifact in made.values()]
    assert weights[0] != weights[1]
    again, _ = perform(Chat, tmp_path / "again", ChatConfig(row=64, epochs=4.0, neftune=5.0), model=model, dialogues=(chats,), corpus=None)
    assert (again.path / "model.safetensors").read_bytes() == weights[1]


def test_batches_must_be_shared_evenly(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4)
    with pytest.raises(StageError, match="choose a multiple"):
        perform(Chat, tmp_path / "sft", ChatConfig(row=64, batch_rows=4, micro_rows=3), model=model, dialogues=(chats,), corpus=None)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("start", ["semantic", "mean"])
def test_new_control_tokens_begin_as_the_words_they_spell_or_as_the_mean(tmp_path, tied, start):
    import torch

    from llmstages import chat, templates
    from llmstages.plugins.sft.new_tokens import room, spelling

    model = saved_model(tmp_path / "base")
    net, tokenizer = training.load_model(model, None), training.load_tokenizer(model.path)
    if not tied:
        net.lm_head.weight = torch.nn.Parameter(net.lm_head.weight.detach() * 2)
        net.config.tie_word_embeddings = False
    before = [net.get_input_embeddings().weight.detach().clone(), net.get_output_embeddings().weight.detach().clone()]
    new = templates.install(tokenizer, "zephyr")
    assert new == ["<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"] or set(new) == {"<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"}
    ids = room(net, tokenizer, new, start)
    words = spelling(tokenizer, "<|user|>")
    assert tokenizer.decode(words).strip() == "user" and spelling(tokenizer, "<s>") == []
    for old, layer in zip(before, (net.get_input_embeddings(), net.get_output_embeddings()), strict=True):
        row = layer.weight.detach()[ids[new.index("<|user|>")]]
        assert torch.equal(layer.weight.detach()[: len(old)], old) and layer.weight.shape[0] == len(tokenizer)
        assert torch.allclose(row, old[words].mean(0) if start == "semantic" else old.mean(0), atol=1e-6)
        assert torch.allclose(layer.weight.detach()[ids[new.index("<s>")]], old.mean(0), atol=1e-6)
    assert (net.get_input_embeddings().weight is net.get_output_embeddings().weight) is tied
    assert chat.control(tokenizer).end == tokenizer.convert_tokens_to_ids("</s>")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("lora", [0, 4])
def test_a_model_learns_another_template_with_new_tokens(tmp_path, model, lora, tied):
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    if not tied:
        net = training.load_model(model, None)
        net.lm_head.weight = torch.nn.Parameter(net.lm_head.weight.detach().clone())
        net.config.tie_word_embeddings = False
        net.save_pretrained(model.path)
    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4)
    config = ChatConfig(row=64, epochs=200.0 if lora else 60.0, learning_rate=2e-2 if lora else 5e-3, batch_rows=2, warmup=2, template="llama3", lora=lora, keep_adapter=True)
    made, metrics = perform(Chat, tmp_path / "sft", config, model=model, dialogues=(chats,), corpus=None)
    assert metrics["new_tokens"] == 5 and any("5 new control tokens" in line for line in perform.said)
    tokenizer = training.load_tokenizer(made.path)
    reply = generation.reply(training.load_model(made, None), tokenizer, [TALK[:1]], max_new_tokens=24)[0]
    assert reply.ended and reply.text == TALK[1]["content"]
    if not lora:
        return
    before, after = load_file(model.path / "model.safetensors"), load_file(made.path / "model.safetensors")
    rows = before["model.embed_tokens.weight"].shape[0]
    for name in ("model.embed_tokens.weight", *([] if tied else ["lm_head.weight"])):
        assert torch.equal(before[name], after[name][:rows]), "only the rows of the new tokens are trained"
    end = tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert not torch.allclose(after["model.embed_tokens.weight"][end], after["model.embed_tokens.weight"][:rows].mean(0), atol=1e-2)
    linear = [value.shape for name, value in before.items() if name.endswith("proj.weight")]
    table = 5 * before["model.embed_tokens.weight"].shape[1]
    assert metrics["trained_parameters"] == sum(4 * sum(shape) for shape in linear) + table * (1 if tied else 2)
    grown = training.load_model(model, None)
    grown.resize_token_embeddings(rows + 5, mean_resizing=False)
    adapted = PeftModel.from_pretrained(grown, made.path / "adapter").eval()
    ids = torch.tensor([[1, 5, rows, rows + 1, 77, end]])
    with torch.no_grad():
        assert torch.allclose(training.load_model(made, None).eval()(ids).logits, adapted(ids).logits, atol=1e-4)
