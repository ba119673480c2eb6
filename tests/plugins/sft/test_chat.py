"""SFT: learns a dialogue by heart, gates block what would train something else, LoRA merges."""

from __future__ import annotations

import json

import pytest

from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.plugins.sft.chat import Chat, ChatConfig
from llmstages.text import generate
from llmstages.text.messages import message
from llmstages.train.trainer import collate, load_model, load_tokenizer
from tests.tiny import TALK, TEXTS, perform, saved, saved_model

CONFIG = ChatConfig(max_length=64, epochs=60.0, learning_rate=5e-3, batch_size=2, warmup_steps=2)


@pytest.fixture
def model(tmp_path):
    return saved_model(tmp_path / "base")


def test_it_learns_the_dialogue_and_stops(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4)
    made, metrics = perform(
        Chat, tmp_path / "sft", CONFIG, model=model, dialogues=(chats,), corpus=None
    )
    reply = generate.reply(
        load_model(made, None), load_tokenizer(made.path), [TALK[:1]], max_new_tokens=24
    )[0]
    assert reply.ended and reply.text == TALK[1]["content"]
    assert metrics["loss_last"] < metrics["loss_first"]


def test_replay_brings_documents_back(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4)
    corpus = saved(
        tmp_path / "corpus",
        "corpus",
        [{"id": str(i), "url": "u", "text": t[:60]} for i, t in enumerate(TEXTS)],
    )
    _, metrics = perform(
        Chat,
        tmp_path / "sft",
        ChatConfig(max_length=64, replay=5),
        model=model,
        dialogues=(chats,),
        corpus=corpus,
    )
    assert metrics["replayed"] == 5


@pytest.mark.parametrize(
    "messages, why", [([message("user", "hi")], "supervised"), ([], "supervised")]
)
def test_gates_block_dialogues_without_an_answer(tmp_path, model, messages, why):
    rows = (
        [{"messages": messages}]
        if messages
        else [{"messages": [message("user", "a"), message("user", "b")]}]
    )
    with pytest.raises(StageError, match=why):
        perform(
            Chat,
            tmp_path / "sft",
            CONFIG,
            model=model,
            dialogues=(saved(tmp_path / "chats", "dialogues", rows),),
            corpus=None,
        )
    assert not all(
        g["passed"] for g in json.loads((tmp_path / "sft" / "out" / "gates.json").read_text())
    )


def test_too_long_dialogues_are_dropped_with_a_line_or_refused(tmp_path, model):
    long = [message("user", "the cat sat. " * 60), message("assistant", "yes")]
    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}, {"messages": long}])
    _, metrics = perform(
        Chat,
        tmp_path / "drop",
        ChatConfig(max_length=64),
        model=model,
        dialogues=(chats,),
        corpus=None,
    )
    assert (
        metrics["dropped_too_long"] == 1
        and "1 of 2 dialogues are longer than max_length=64 tokens (chats:1): dropped"
        in perform.said[0]
    )
    with pytest.raises(StageError, match="raise error.row"):
        perform(
            Chat,
            tmp_path / "error",
            ChatConfig(max_length=64, overlong="error"),
            model=model,
            dialogues=(chats,),
            corpus=None,
        )


def test_lora_trains_adapters_and_merges_them(tmp_path, model):
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4)
    made, metrics = perform(
        Chat,
        tmp_path / "sft",
        ChatConfig(max_length=64, lora_r=4, epochs=10.0, keep_adapter=True),
        model=model,
        dialogues=(chats,),
        corpus=None,
    )
    before, after = (
        load_file(model.path / "model.safetensors"),
        load_file(made.path / "model.safetensors"),
    )
    assert set(before) == set(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("proj" in name for name in changed)
    linear = [value.shape for name, value in before.items() if name.endswith("proj.weight")]
    assert metrics["trained_parameters"] == sum(
        4 * (rows + columns) for rows, columns in linear
    )  # two matrices of rank 4 a layer
    assert any(
        f"{metrics['trained_parameters']:,} weights of rank-4 adapters" in line
        for line in perform.said
    )
    adapted = PeftModel.from_pretrained(load_model(model, None), made.path / "adapter").eval()
    ids = torch.tensor([[1, 5, 9, 40, 77, 3]])
    with torch.no_grad():
        merged, apart, plain = (
            net(ids).logits
            for net in (load_model(made, None).eval(), adapted, load_model(model, None).eval())
        )
    assert torch.allclose(merged, apart, atol=1e-5) and not torch.allclose(merged, plain, atol=1e-3)


def test_loss_on_the_last_answer_alone(tmp_path, model):
    talk = [
        *TALK,
        message("user", "Who?"),
        message("assistant", "Bo", "search"),
        message("tool", "Bo Li", "search"),
        message("assistant", "Bo Li."),
    ]
    inputs = {
        "model": model,
        "dialogues": (saved(tmp_path / "chats", "dialogues", [{"messages": talk}]),),
        "corpus": None,
    }
    texts = []
    for loss in ("all", "last"):
        prepared = Chat().prepare(
            ChatConfig(max_length=96, loss=loss), Context("sft", tmp_path, tmp_path, inputs)
        )
        row = prepared.rows[0]
        texts.append(
            prepared.tokenizer.decode(
                [token for token, on in zip(row.ids, row.supervised, strict=True) if on]
            )
        )
        assert all(g["passed"] for g in prepared.gates)
    assert (
        texts[1] == "<SEARCH_START> Bo<SEARCH_END> Bo Li.<|im_end|>"
        and texts[0] == " The fox lives near the river.<|im_end|>" + texts[1]
    )


@pytest.mark.parametrize(
    "question, leaked",
    [
        ("Where does  the FOX live?", True),
        ("Where does the wolf live?", False),
        ("how many legs have a spider and two cats together", True),
        ("legs have", False),
    ],
)
def test_questions_of_an_evaluation_are_not_taught(tmp_path, model, question, leaked):
    within = [
        message("user", "Tell me: how many legs have a spider and two cats together ?"),
        message("assistant", "16"),
    ]
    tests = saved(
        tmp_path / "tests",
        "problems",
        [
            {"prompt": [message("user", q)], "answer": "x", "role": role}
            for q, role in ((question, "test"), ("Who?", "train"))
        ],
    )
    inputs = {
        "model": model,
        "dialogues": (
            saved(
                tmp_path / "chats",
                "dialogues",
                [
                    {"messages": [message("user", "Who?"), TALK[1]]},
                    {"messages": TALK},
                    {"messages": within},
                ],
            ),
        ),
        "corpus": None,
        "evaluations": (tests,),
    }
    prepared = Chat().prepare(ChatConfig(max_length=96), Context("sft", tmp_path, tmp_path, inputs))
    found = {g["gate"]: g for g in prepared.gates}["dialogues that hold an evaluation question"]
    assert found["passed"] is not leaked and found["rows"] == (
        (["chats:1"] if "FOX" in question else ["chats:2"]) if leaked else []
    )


def test_neftune_puts_noise_into_training_and_nowhere_else(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4)
    made = {
        alpha: perform(
            Chat,
            tmp_path / str(alpha),
            ChatConfig(max_length=64, epochs=4.0, neftune=alpha),
            model=model,
            dialogues=(chats,),
            corpus=None,
        )[0]
        for alpha in (0.0, 5.0)
    }
    weights = [(artifact.path / "model.safetensors").read_bytes() for artifact in made.values()]
    assert weights[0] != weights[1]
    again, _ = perform(
        Chat,
        tmp_path / "again",
        ChatConfig(max_length=64, epochs=4.0, neftune=5.0),
        model=model,
        dialogues=(chats,),
        corpus=None,
    )
    assert (again.path / "model.safetensors").read_bytes() == weights[1]


def test_batches_must_be_shared_evenly(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4)
    with pytest.raises(StageError, match="choose a multiple"):
        perform(
            Chat,
            tmp_path / "sft",
            ChatConfig(max_length=64, batch_size=4, micro_batch_size=3),
            model=model,
            dialogues=(chats,),
            corpus=None,
        )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("start", ["semantic", "mean"])
def test_new_control_tokens_begin_as_the_words_they_spell_or_as_the_mean(tmp_path, tied, start):
    import torch

    from llmstages.plugins.sft.new_tokens import init_new_embeddings, spelling
    from llmstages.text import chat_format, templates

    model = saved_model(tmp_path / "base")
    net, tokenizer = load_model(model, None), load_tokenizer(model.path)
    if not tied:
        net.lm_head.weight = torch.nn.Parameter(net.lm_head.weight.detach() * 2)
        net.config.tie_word_embeddings = False
    before = [
        net.get_input_embeddings().weight.detach().clone(),
        net.get_output_embeddings().weight.detach().clone(),
    ]
    new = templates.install(tokenizer, "zephyr")
    assert new == ["<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"] or set(
        new
    ) == {"<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"}
    ids = init_new_embeddings(net, tokenizer, new, start)
    words = spelling(tokenizer, "<|user|>")
    assert tokenizer.decode(words).strip() == "user" and spelling(tokenizer, "<s>") == []
    for old, layer in zip(
        before, (net.get_input_embeddings(), net.get_output_embeddings()), strict=True
    ):
        row = layer.weight.detach()[ids[new.index("<|user|>")]]
        assert torch.equal(layer.weight.detach()[: len(old)], old) and layer.weight.shape[0] == len(
            tokenizer
        )
        assert torch.allclose(
            row, old[words].mean(0) if start == "semantic" else old.mean(0), atol=1e-6
        )
        assert torch.allclose(layer.weight.detach()[ids[new.index("<s>")]], old.mean(0), atol=1e-6)
    assert (net.get_input_embeddings().weight is net.get_output_embeddings().weight) is tied
    assert chat_format.control(tokenizer).end == tokenizer.convert_tokens_to_ids("</s>")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("lora", [0, 4])
def test_a_model_learns_another_template_with_new_tokens(tmp_path, model, lora, tied):
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    if not tied:
        net = load_model(model, None)
        net.lm_head.weight = torch.nn.Parameter(net.lm_head.weight.detach().clone())
        net.config.tie_word_embeddings = False
        net.save_pretrained(model.path)
    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4)
    config = ChatConfig(
        row=64,
        epochs=200.0 if lora else 60.0,
        learning_rate=2e-2 if lora else 5e-3,
        batch_size=2,
        warmup_steps=2,
        template="llama3",
        lora_r=lora,
        keep_adapter=True,
    )
    made, metrics = perform(
        Chat, tmp_path / "sft", config, model=model, dialogues=(chats,), corpus=None
    )
    assert metrics["new_tokens"] == 5 and any(
        "5 new control tokens" in line for line in perform.said
    )
    tokenizer = load_tokenizer(made.path)
    reply = generate.reply(load_model(made, None), tokenizer, [TALK[:1]], max_new_tokens=24)[0]
    assert reply.ended and reply.text == TALK[1]["content"]
    if not lora:
        return
    before, after = (
        load_file(model.path / "model.safetensors"),
        load_file(made.path / "model.safetensors"),
    )
    rows = before["model.embed_tokens.weight"].shape[0]
    for name in ("model.embed_tokens.weight", *([] if tied else ["lm_head.weight"])):
        assert torch.equal(before[name], after[name][:rows]), (
            "only the rows of the new tokens are trained"
        )
    end = tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert not torch.allclose(
        after["model.embed_tokens.weight"][end],
        after["model.embed_tokens.weight"][:rows].mean(0),
        atol=1e-2,
    )
    linear = [value.shape for name, value in before.items() if name.endswith("proj.weight")]
    table = 5 * before["model.embed_tokens.weight"].shape[1]
    assert metrics["trained_parameters"] == sum(4 * sum(shape) for shape in linear) + table * (
        1 if tied else 2
    )
    grown = load_model(model, None)
    grown.resize_token_embeddings(rows + 5, mean_resizing=False)
    adapted = PeftModel.from_pretrained(grown, made.path / "adapter").eval()
    ids = torch.tensor([[1, 5, rows, rows + 1, 77, end]])
    with torch.no_grad():
        assert torch.allclose(
            load_model(made, None).eval()(ids).logits, adapted(ids).logits, atol=1e-4
        )


def many(count):
    return [
        {
            "messages": [
                message("user", f"Where is {i}? " + "the cat sat. " * (i % 5)),
                message("assistant", f"In {i + 1}."),
            ]
        }
        for i in range(count)
    ]


def test_a_dialogue_a_row_gives_the_same_loss_and_batches_of_like_length(tmp_path, model):
    import torch

    from llmstages.data.packing import pack
    from llmstages.plugins.sft.rows import apart, grouped
    from llmstages.text.render import render

    tokenizer, net = load_tokenizer(model.path), load_model(model, None).eval()
    rows = render(tokenizer, [row["messages"] for row in many(20)])
    alone, cut = apart(rows, 64)
    assert not cut and [len(row["input_ids"]) for row in alone] == [len(row.ids) for row in rows]
    packed, _ = pack(rows, 64, tokenizer.pad_token_id, 0)
    with torch.no_grad():

        def nats(some):
            batch = collate(some, pad=tokenizer.pad_token_id)
            return net(**batch).loss * (batch["labels"][:, 1:] != -100).sum()

        assert torch.allclose(nats(alone), nats(packed), rtol=1e-5)
    order = grouped(alone, 4, 25, seed=0)
    assert (
        len(order) == 100
        and all(sorted(order[i : i + 20]) == list(range(20)) for i in range(0, 100, 20))
        and order[:20] != order[20:40]
    )
    spread = [
        max(sizes) - min(sizes)
        for at in range(0, 100, 4)
        for sizes in [[len(alone[i]["input_ids"]) for i in order[at : at + 4]]]
    ]
    assert (
        max(spread)
        <= 5
        < max(map(len, (row.ids for row in rows))) - min(map(len, (row.ids for row in rows)))
    )
    uneven = [{"input_ids": [1] * (1 + i % 37)} for i in range(803)]
    order = grouped(uneven, 16, 250, seed=0)
    spread = [
        max(sizes) - min(sizes)
        for at in range(0, len(order), 16)
        for sizes in [[len(uneven[i]["input_ids"]) for i in order[at : at + 16]]]
    ]
    assert sum(spread) / len(spread) < 2 and {order.count(i) for i in range(803)} <= {4, 5}
    chats = saved(tmp_path / "chats", "dialogues", many(20))
    _, metrics = perform(
        Chat,
        tmp_path / "sft",
        ChatConfig(max_length=64, packing=False, epochs=3.0),
        model=model,
        dialogues=(chats,),
        corpus=None,
    )
    assert metrics["updates"] == 15 and metrics["loss_last"] < metrics["loss_first"]


def test_the_format_is_looked_at_while_training(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", many(30))
    weights = []
    for number, more in enumerate(({}, {"format_eval_steps": 5, "format_eval_samples": 4})):
        made, metrics = perform(
            Chat,
            tmp_path / f"sft{number}",
            ChatConfig(max_length=64, epochs=40.0, learning_rate=5e-3, **more),
            model=model,
            dialogues=(chats,),
            corpus=None,
        )
        weights.append((made.path / "model.safetensors").read_bytes())
    assert weights[0] == weights[1], "looking changes nothing"
    log = [json.loads(line) for line in (made.path / "log.jsonl").read_text().splitlines()]
    looks = [row for row in log if "format/ended" in row]
    assert [row["step"] for row in looks] == sorted(
        {0, *range(5, int(metrics["updates"]) + 1, 5), int(metrics["updates"])}
    )
    assert (
        looks[-1]["format/ended"] == metrics["format_ended"] == 1.0
        and looks[0]["format/ended"] < 1.0
    )
    assert any("of 4 answers end their turn" in line for line in perform.said)


def test_held_out_dialogues_are_not_trained_on(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", many(30))
    config = ChatConfig(max_length=64, epochs=3.0, num_test=6, format_eval_steps=4)
    prepared = Chat().prepare(
        config,
        Context("sft", tmp_path, tmp_path, {"model": model, "dialogues": (chats,), "corpus": None}),
    )
    assert len(prepared.rows) == 24 and len(prepared.held) == 6 and prepared.facts["held out"] == 6
    held = {tuple(row.ids) for row in prepared.held}
    assert not held & {tuple(row.ids) for row in prepared.rows} and len(prepared.shown) == 6
    made, _ = perform(Chat, tmp_path / "sft", config, model=model, dialogues=(chats,), corpus=None)
    assert any(
        "eval_loss" in json.loads(line)
        for line in (made.path / "log.jsonl").read_text().splitlines()
    )
    drawn = Chat().prepare(
        ChatConfig(max_length=64, epochs=3.0, num_test=20, resample_each_epoch=True),
        Context("sft", tmp_path, tmp_path, {"model": model, "dialogues": (chats,), "corpus": None}),
    )
    assert (
        len(drawn.held) == len({tuple(row.ids) for row in drawn.held}) == 20
        and len(drawn.rows) == 30
    )
    with pytest.raises(StageError, match="held_out=30 leaves none of 30"):
        perform(
            Chat,
            tmp_path / "none",
            ChatConfig(max_length=64, num_test=30),
            model=model,
            dialogues=(chats,),
            corpus=None,
        )


def test_a_share_can_be_drawn_anew_in_every_pass(tmp_path, model):
    chats = saved(tmp_path / "chats", "dialogues", many(40))
    inputs = {"model": model, "dialogues": (chats,), "corpus": None}
    seen = {}
    for resample_each_epoch in (False, True):
        prepared = Chat().prepare(
            ChatConfig(
                row=64,
                epochs=4.0,
                mixture_weights={"chats": 0.5},
                resample_each_epoch=resample_each_epoch,
            ),
            Context("sft", tmp_path, tmp_path, inputs),
        )
        seen[resample_each_epoch] = len(set(prepared.names)), len(prepared.names)
    assert seen[False] == (20, 20) and seen[True][1] == 80 and seen[True][0] > 30
    updates = [
        perform(
            Chat,
            tmp_path / f"sft{resample_each_epoch}",
            ChatConfig(
                row=64,
                epochs=4.0,
                mixture_weights={"chats": 0.5},
                resample_each_epoch=resample_each_epoch,
            ),
            **inputs,
        )[1]["updates"]
        for resample_each_epoch in (False, True)
    ]
    assert abs(updates[0] - updates[1]) <= 2


def test_adapters_on_a_model_in_four_bits(tmp_path):
    import torch

    with pytest.raises(ValueError, match="give their rank"):
        ChatConfig(qlora=True)
    chats, model = (
        saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4),
        saved_model(tmp_path / "base", hidden_size=64),
    )
    config = ChatConfig(
        row=64,
        lora_r=8,
        qlora=True,
        epochs=200.0,
        learning_rate=2e-2,
        batch_size=2,
        warmup_steps=2,
        template="llama3",
    )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        with pytest.raises(StageError, match=r"pip install 'llmstages\[qlora\]'"):
            perform(
                Chat, tmp_path / "without", config, model=model, dialogues=(chats,), corpus=None
            )
        return
    made, metrics = perform(
        Chat, tmp_path / "sft", config, model=model, dialogues=(chats,), corpus=None
    )
    net = load_model(made, None)
    assert {p.dtype for p in net.parameters()} == {torch.float32} and metrics[
        "loss_last"
    ] < 0.2 * metrics["loss_first"]
    assert (
        generate.reply(net, load_tokenizer(made.path), [TALK[:1]], max_new_tokens=24)[0].text
        == TALK[1]["content"]
    )


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0.0},
        {"epochs": float("inf")},
        {"replay": -1},
        {"lora": -1},
        {"neftune": -1.0},
        {"held_out": -1},
        {"row": 1},
        {"weights": {"chats": -0.5}},
        {"format_eval_samples": 0},
    ],
)
def test_values_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        ChatConfig(**bad)


def test_control_tokens_that_lie_untrained_in_the_model_are_trained_under_lora_too(tmp_path):
    """Reserved tokens, as in Llama 3: the tokenizer and the embeddings have them, but nothing was trained on them."""
    from safetensors.torch import load_file

    from llmstages.text import templates

    model = saved_model(tmp_path / "base")
    tokenizer, net = load_tokenizer(model.path), load_model(model, None)
    kept = tokenizer.chat_template
    templates.install(tokenizer, "llama3")
    tokenizer.chat_template = kept
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = (
        "<|endoftext|>",
        "<|im_end|>",
        "<|pad|>",
    )
    net.resize_token_embeddings(
        len(tokenizer) + 8, mean_resizing=False
    )  # and some rows that no token has
    net.save_pretrained(model.path)
    tokenizer.save_pretrained(model.path)
    chats = saved(tmp_path / "chats", "dialogues", [{"messages": TALK}] * 4)
    made, metrics = perform(
        Chat,
        tmp_path / "sft",
        ChatConfig(max_length=64, epochs=20.0, lora_r=4, template="llama3"),
        model=model,
        dialogues=(chats,),
        corpus=None,
    )
    before, after = (
        load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
        for folder in (model.path, made.path)
    )
    changed = {i for i in range(len(before)) if not (before[i] == after[i]).all()}
    assert metrics["new_tokens"] == 0 and changed == set(
        tokenizer.convert_tokens_to_ids(["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"])
    )
