"""What a chat model is trained on: dialogues of all sources, less those held out, and replay."""

from __future__ import annotations

import dataclasses as dc
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context
from llmstages.data.dialogues import Dialogue, Prepared
from llmstages.text import templates
from llmstages.text.messages import Message
from llmstages.text.render import Rendered


@dataclass
class PreparedChats(Prepared):
    """Prepared rows, and what is kept apart from them.

    Attributes:
        held_out: rows for the loss on dialogues that are not trained on.
        format_dialogues: dialogues for the checks of the format (format_eval.py).
        template_tokens: ids of the control tokens of a newly installed template. The model may
            have them already, but untrained, like the reserved tokens of Llama.
        passes: how often the sources were drawn; the rows hold all draws.
    """

    held_out: list[Rendered] = field(default_factory=list)
    format_dialogues: list[Sequence[Message]] = field(default_factory=list)
    template_tokens: list[int] = field(default_factory=list)
    passes: int = 1


def install_template(
    tokenizer: Any, template: str, template_file: str, where: str
) -> tuple[list[str], list[int]]:
    """Give the tokenizer another chat template.

    Args:
        template: a name of templates.NAMED, or "keep": the template of ``template_file`` works
            with the control tokens that the tokenizer has.
        where: the option that names the file, for messages.

    Returns:
        (control tokens that are new to the tokenizer, ids of all that the template uses).
    """
    from llmstages.text import chat_format

    text = templates.read(template_file, where) if template_file else ""
    name = templates.OWN if template == "keep" else template
    new_tokens = templates.install(tokenizer, name, text)
    control = chat_format.control_tokens(tokenizer)
    used = list(control.heads)
    if control.end is not None:
        used.append(control.end)
    return new_tokens, used


def draw_dialogues(
    sources: Sequence[Artifact], weights: Mapping[str, float], seed: int, passes: int
) -> list[Dialogue]:
    """The dialogues of all sources, drawn once for each pass.

    Args:
        weights: step name -> share of its dialogues in one draw.
    """
    from llmstages.data import dialogues

    drawn: list[Dialogue] = []
    # Each pass has a generator of its own, so the first draw is the same for any number of passes.
    for number in range(passes):
        drawn += dialogues.load(sources, weights, random.Random(seed + number))
    return drawn


def add_schemas(
    tokenizer: Any, dialogues: Sequence[Dialogue], sources: Sequence[Artifact]
) -> list[Dialogue]:
    """The dialogues, those of a tools artifact with the schemas that its model sees at inference.

    Without them a model would be trained on calls of tools that its prompt does not name, and
    asked with a prompt that it never saw (see generate.with_schemas).
    """
    from llmstages.text import generate

    tools = {
        source.name: generate.open_tools(source.path)
        for source in sources
        if (source.path / "tools.json").exists()
    }
    completed = []
    for dialogue in dialogues:
        own_tools = tools.get(dialogue.name.partition(":")[0])
        messages = generate.with_schemas(tokenizer, dialogue.messages, own_tools)
        completed.append(dialogue._replace(messages=messages))
    return completed


def evaluation_questions(ctx: Context) -> list[str]:
    """The questions that a model will be measured on.

    These are the problems of the role ``test``; of a source without roles, all of them.
    """
    from llmstages.data import tables

    questions = []
    for source in ctx.many("evaluations"):
        rows = list(tables.load(source.path / "data"))
        tests = [row for row in rows if row.get("role") == "test"]
        for row in tests or rows:
            questions.append(row["prompt"][-1]["content"])
    return questions


def replayed_documents(
    ctx: Context, tokenizer: Any, count: int, seed: int, passes: int
) -> list[Rendered]:
    """Random documents of the corpus, drawn once for each pass, with loss on all tokens.

    Only the documents drawn are read and encoded: the corpus may hold a million times as many.
    """
    from llmstages.data import tables
    from llmstages.text import chat_format

    corpus = ctx.maybe("corpus")
    if not count or corpus is None:
        return []
    table = tables.load(corpus.path / "data")
    count = min(count, len(table))
    drawn: list[int] = []
    for number in range(passes):
        drawn += random.Random(seed + number).sample(range(len(table)), count)
    texts = table.select_columns(["text"])[drawn]["text"]
    encoded = chat_format.document_ids(tokenizer, texts)
    return [Rendered(ids, [True] * len(ids)) for ids in encoded]


def hold_out(
    prepared: PreparedChats,
    dialogues: Sequence[Dialogue],
    *,
    num_test: int,
    format_samples: int,
    step: str,
) -> PreparedChats:
    """Take ``num_test`` dialogues out of training, with all rows of the same tokens.

    Args:
        prepared: all rows; row i is made from dialogue i.
        format_samples: how many dialogues are chosen for the checks of the format, of those held
            out, or of all where none are held out.

    Raises:
        StageError: nothing would be left to train on.
    """
    # A dialogue may have several rows: its parts (NAME/1, NAME/2), and one for each draw.
    bases = [name.partition("/")[0] for name in prepared.names]
    by_last_row = list(dict.fromkeys(reversed(bases)))[::-1]
    chosen = set(_evenly_spaced(by_last_row, num_test))
    held_out = []
    # A dialogue that was drawn several times is held out once.
    seen_names = set()
    for index, name in enumerate(prepared.names):
        if bases[index] in chosen and name not in seen_names:
            held_out.append(index)
        seen_names.add(name)
    held_out_ids = {tuple(prepared.rows[index].ids) for index in held_out}
    # Other dialogues may have the same tokens: trained on, they would give away what is held out.
    train = []
    for index, row in enumerate(prepared.rows):
        if bases[index] not in chosen and tuple(row.ids) not in held_out_ids:
            train.append(index)
    if held_out and not train:
        raise StageError(
            f"{step}.num_test={num_test} leaves none of {len(by_last_row)} dialogues to train on; "
            "choose a lower number"
        )
    facts = dict(prepared.facts)
    if held_out:
        facts["held out"] = len(dialogues) - len(train)
    sampled = [dialogues[index] for index in held_out] or dialogues
    chats = [dialogue.messages for dialogue in sampled if not dialogue.plain]
    return dc.replace(
        prepared,
        rows=[prepared.rows[index] for index in train],
        names=[prepared.names[index] for index in train],
        held_out=[prepared.rows[index] for index in held_out],
        format_dialogues=_evenly_spaced(chats, format_samples),
        facts=facts,
    )


def seen_in_training(prepared: PreparedChats, documents: Sequence[Rendered]) -> float:
    """The share of the n-grams of the held-out rows that also stand in training (overlap.py)."""
    from llmstages.data.overlap import seen_share
    from llmstages.data.segments import Segments

    return seen_share(Segments.of(prepared.held_out), Segments.of([*prepared.rows, *documents]))


def _evenly_spaced(items: Sequence[Any], count: int) -> list[Any]:
    """``count`` items at equal distances, or all where there are fewer."""
    if not count:
        return []
    step = max(1, len(items) // count)
    return list(items[::step][:count])


def report_template(
    tokenizer: Any, dialogues: Sequence[Dialogue], divided: int, ctx: Context
) -> None:
    """Say where rows differ from what the chat template would write of the whole dialogue.

    divided: the number of dialogues that were divided into one row per answer.
    """
    from llmstages.text.generation_tags import needs_extensions
    from llmstages.text.template_input import has_tools_as_text
    from llmstages.text.templates import template_of
    from llmstages.text.training_template import has_training_form, training_template

    template = training_template(tokenizer)
    if problem := needs_extensions(template_of(tokenizer)):
        ctx.say(
            f"{ctx.step}: transformers can read the chat template, but plain Jinja cannot "
            f"({problem}), nor other programs that use it; what is saved has it as it is"
        )
    chats = [dialogue.messages for dialogue in dialogues if not dialogue.plain]
    as_text = sum(has_tools_as_text(template, messages) for messages in chats)
    if as_text:
        ctx.say(
            f"{ctx.step}: the chat template knows no tools, so those of {as_text} dialogues are "
            "written as text, calls in <tool_call> tags"
        )
    if has_training_form(tokenizer):
        ctx.say(
            f"{ctx.step}: rows are rendered with TRL's training form of the chat template, which "
            "keeps earlier turns as they were said; prompts with the template itself"
        )
    if divided:
        ctx.say(
            f"{ctx.step}: the chat template changes earlier answers when turns follow, so "
            f"{divided} dialogues are trained answer by answer, each after the prompt that the "
            "model would get for it"
        )


def report_empty_thinking(tokenizer: Any, rows: Sequence[Rendered], ctx: Context) -> None:
    """Count the answers that begin with an empty ``<think>`` block, and say so.

    Templates of reasoning models write it before answers without reasoning.
    """
    vocabulary = tokenizer.get_added_vocab()
    begin, end = vocabulary.get("<think>"), vocabulary.get("</think>")
    if begin is None or end is None:
        return
    count = 0
    for row in rows:
        for at, token in enumerate(row.ids):
            if token != begin or not row.supervised[at]:
                continue
            # Between the two there may be a token of white space.
            if end in row.ids[at + 1 : at + 3]:
                count += 1
    if count:
        ctx.say(
            f"{ctx.step}: {count} answers without reasoning are trained with an empty <think> "
            "block, as the chat template writes them; the model learns to answer at once"
        )
