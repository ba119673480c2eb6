"""Gates: what is checked before step 1, because it would train something else and nobody would see it.

Each gate is one entry of gates.json: {gate, value, limit, passed, allowed, cure, rows}; ``rows`` names examples of what failed.
A gate that fails blocks training unless the step's ``allow`` names it. They answer what users of other tools suffer from: masks
that cover everything or nothing, end tokens outside the loss, two BOS, silent cuts, templates that differ between training and use.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError, near
from llmstages.core.stage import Context
from llmstages.data import packing, tables
from llmstages.data.dialogues import Dialogue
from llmstages.text import chat_format, encode
from llmstages.text.messages import Message, message
from llmstages.text.render import (
    Rendered,
    marks_generation,
    render,
    rendered_text,
    template_fields,
)
from llmstages.text.special_tokens import special_tokens_of
from llmstages.text.templates import ROLES, template_of
from llmstages.train import distributed

EXAMPLES = 5  # rows named
LONG = 8  # words from which an evaluation question is looked for within a turn
MANY = 50  # dialogues from which shares of repeats and marks count
COMPARED = 100  # dialogues held against the tokenizer's own template
UNKNOWN_ROLES = "turns of an unknown role"
NO_TEXT = "turns whose content is no text"
Gate = dict[str, Any]


def gate(
    name: str, value: float, limit: float, passed: bool, cure: str, rows: Iterable[str] = ()
) -> Gate:
    """One check before step 1."""
    return {
        "gate": name,
        "value": round(float(value), 6),
        "limit": limit,
        "passed": bool(passed),
        "allowed": False,
        "cure": cure,
        "rows": list(rows)[:EXAMPLES],
    }


def _none(name: str, bad: Sequence[str], cure: str) -> Gate:
    """A gate that nothing may fail."""
    return gate(name, len(bad), 0, not bad, cure, bad)


def check_dialogues(dialogues: Sequence[Dialogue]) -> list[Gate]:
    """What can be told from the messages alone."""

    def bad(test: Callable[[Sequence[Message]], bool]) -> list[str]:
        return [d.name for d in dialogues if test(d.messages)]

    seen, repeated = {}, []
    for d in dialogues:
        key = json.dumps(
            [
                [m["role"], m["content"], m.get("tool") or "", m.get("tools") or ""]
                for m in d.messages
            ]
        )
        if (
            seen.setdefault(key, d.name) != d.name
        ):  # a row that is drawn twice by its weight is no repetition
            repeated.append(f"{d.name} (as {seen[key]})")
    many = len(dialogues) >= MANY
    marked = bad(
        lambda ms: any(
            mark in str(m["content"])
            for m in ms
            for mark in (
                "<|im_start|>",
                "<|im_end|>",
                "<|start_header_id|>",
                "[/INST]",
                "<|eot_id|>",
            )
        )
    )
    return [
        _none("empty dialogues", bad(lambda ms: not ms), "drop rows without messages"),
        _none(
            NO_TEXT,
            bad(lambda ms: any(not isinstance(m["content"], str) for m in ms)),
            "a turn holds nothing or a number where its text should be: drop the row, or write the text",
        ),
        _none(
            UNKNOWN_ROLES,
            bad(lambda ms: any(m["role"] not in ROLES for m in ms)),
            f"known roles are {', '.join(ROLES)}",
        ),
        _none(
            "turns without content",
            bad(
                lambda ms: any(
                    not str(m["content"]).strip() and not m.get("tool") and not m.get("tools")
                    for m in ms
                )
            ),
            "an empty answer teaches to say nothing: drop the row or the turn",
        ),
        _none(
            "dialogues that end without an answer",
            bad(lambda ms: bool(ms) and ms[-1]["role"] != "assistant"),
            "nothing is learnt from a last turn of somebody else: cut it off",
        ),
        _none(
            "roles out of order",
            bad(lambda ms: not ordered(ms)),
            "a system turn first if at all, then questions and answers in turn; tool results after a call. Join or cut turns",
        ),
        _none(
            "tool results without a call",
            bad(_uncalled),
            "put the assistant's call (tool=NAME) before the result, or drop the result",
        ),
        gate(
            "share of repeated dialogues",
            len(repeated) / max(len(dialogues), 1),
            0.2,
            not many or len(repeated) <= 0.2 * len(dialogues),
            "the same dialogue again and again is learnt by heart: remove copies, or raise a source's weight where you mean it",
            repeated,
        ),
        gate(
            "share of texts that hold template marks",
            len(marked) / max(len(dialogues), 1),
            0.01,
            not many or len(marked) <= 0.01 * len(dialogues),
            "these texts were rendered with a template already and would be rendered twice: give the messages themselves",
            marked,
        ),
    ]


def ordered(messages: Sequence[Message]) -> bool:
    """Whether turns follow each other as a conversation does."""
    after = {
        "": ("system", "user"),
        "system": ("user",),
        "user": ("assistant", "call"),
        "call": ("tool", "call", "assistant"),
        "tool": ("tool", "call", "assistant"),
        "assistant": ("user", "call"),
    }
    before = ""
    for m in messages:
        now = "call" if m["role"] == "assistant" and m.get("tool") else m["role"]
        if now not in after.get(before, ()):
            return False
        before = now
    return True


def _uncalled(messages: Sequence[Message]) -> bool:
    """Whether a result comes with no call before it."""
    called = False
    for m in messages:
        called = called or (m["role"] == "assistant" and bool(m.get("tool")))
        if m["role"] == "tool" and not called:
            return True
    return False


def check_leaks(dialogues: Sequence[Dialogue], questions: Iterable[str]) -> list[Gate]:
    """Questions that a model is measured on must not be among those it is taught: as a whole turn, or, of LONG words and more, within one."""
    asked = {tuple(q.casefold().split()) for q in questions}
    begins: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for q in asked:
        if len(q) >= LONG:
            begins.setdefault(q[:LONG], []).append(q)

    def leaks(text: str) -> bool:
        words = tuple(text.casefold().split())
        return words in asked or any(
            words[i : i + len(q)] == q
            for i in range(len(words) - LONG + 1)
            for q in begins.get(words[i : i + LONG], ())
        )

    found = [
        d.name
        for d in dialogues
        if any(m["role"] == "user" and leaks(str(m["content"])) for m in d.messages)
    ]
    return (
        [
            _none(
                "dialogues that hold an evaluation question",
                found,
                "the model would be measured on what it was taught: take these rows out",
            )
        ]
        if asked
        else []
    )


def check_rows(
    rows: Sequence[Rendered] | packing.Segments,
    tokenizer: Any,
    names: Sequence[str] = (),
    *,
    least_supervised: float = 0.01,
    spoken: bool | Sequence[bool] = True,
    context: int = 0,
) -> list[Gate]:
    """What can be told from tokens and mask. names: of the rows; spoken: which of them are dialogues in a chat template, not running text;
    context: the longest row the model takes, 0 where any."""
    import numpy as np

    pieces = rows if isinstance(rows, packing.Segments) else packing.Segments.of(rows)
    sizes, on = pieces.sizes(), pieces.supervised()
    tokens = int(sizes.sum())

    def which(bad: Any) -> list[str]:
        return [names[i] if i < len(names) else f"row {i}" for i in np.flatnonzero(bad)[:EXAMPLES]]

    bos, pad = tokenizer.bos_token_id, tokenizer.pad_token_id
    padded = np.zeros(len(pieces), bool) if pad is None else pieces.occurrences(pad) > 0
    found = [
        gate(
            "rows",
            len(rows),
            1,
            bool(len(rows)),
            "the inputs gave no rows: look at the steps before",
        ),
        gate(
            "supervised share",
            int(on.sum()) / max(tokens, 1),
            least_supervised,
            on.sum() >= least_supervised * tokens,
            "hardly any token is trained on: are there assistant turns?",
        ),
        gate(
            "rows without a supervised token",
            int((on == 0).sum()),
            0,
            not (on == 0).any(),
            "drop dialogues that have no assistant turn, or whose answer was cut away",
            which(on == 0),
        ),
        gate(
            "rows with padding inside",
            int(padded.sum()),
            0,
            not padded.any(),
            "padding is added when rows are made, never before",
            which(padded),
        ),
    ]
    if bos is not None:
        one_bos = pieces.begins_with(bos) & (pieces.occurrences(bos) == 1)
        found.append(
            gate(
                "rows that begin with exactly one BOS",
                one_bos.mean() if len(rows) else 0.0,
                1.0,
                bool(one_bos.all()),
                "every text of every stage begins with the same BOS: it is missing in the chat template, or a text carries its own",
                which(~one_bos),
            )
        )
    if context:
        found.append(
            gate(
                "longest row",
                int(sizes.max(initial=0)),
                context,
                bool((sizes <= context).all()),
                "the model knows no positions beyond its context: lower row, or split long dialogues",
                which(sizes > context),
            )
        )
    turns = np.full(len(pieces), spoken) if isinstance(spoken, bool) else np.array(spoken, bool)
    if turns.any():
        known = chat_format.control(tokenizer)
        ends = (
            np.zeros(len(pieces), bool)
            if known.end is None
            else pieces.occurrences(known.end, supervised=True) > 0
        )
        begun = np.array(
            [bool(turns[i]) and _says_first(pieces, i, bos) for i in range(len(pieces))], bool
        )
        heads = (
            sum(
                (pieces.occurrences(head, supervised=True) for head in known.heads),
                np.zeros(len(pieces), np.int64),
            )
            > 0
        )
        found += [
            gate(
                "pad differs from end of turn",
                -1 if pad is None else pad,
                0,
                pad is None or pad != known.end,
                "with pad = end of turn the model never learns to stop",
            ),
            gate(
                "dialogues whose end of turn is supervised",
                (turns & ends).sum() / turns.sum(),
                0.9,
                bool((turns & ends).sum() >= 0.9 * turns.sum()),
                "the end token carries no loss, so the model would never learn to stop: it must stand inside the template's {% generation %} block",
                which(turns & ~ends),
            ),
            gate(
                "rows whose headers are supervised",
                int((heads | begun).sum()),
                0,
                not (heads | begun).any(),
                "the loss sees what the user says too: the mask is wrong",
                which(heads | begun),
            ),
        ]
    return found


def _says_first(pieces: packing.Segments, index: int, bos: int | None) -> bool:
    """Whether the loss sees the first token of a dialogue (after its BOS): it belongs to the header of a turn."""
    ids, on = pieces.read(index)
    at = int(bos is not None and len(ids) > 0 and ids[0] == bos)
    return bool(len(ids) > at and on[at])


def check_dialogue_template(dialogues: Sequence[Dialogue], tokenizer: Any) -> list[Gate]:
    """Training and use give the same tokens, and tokens give back the text; on an even sample of the dialogues."""
    spoken = [d for d in dialogues if not d.plain and d.messages]
    sample = spoken[:: max(1, len(spoken) // COMPARED)]
    if not sample:
        return []
    trained = render(tokenizer, [d.messages for d in sample])
    answered = [
        (d, done)
        for d, done in zip(sample, trained, strict=True)
        if d.messages[-1]["role"] == "assistant"
    ]
    asked = chat_format.prompt_ids(tokenizer, [d.messages[:-1] for d, _ in answered])
    apart = [
        d.name
        for (d, done), prompt in zip(answered, asked, strict=True)
        if done.ids[: len(prompt)] != prompt or not any(done.supervised[len(prompt) :][:1])
    ]
    known = special_tokens_of(tokenizer)
    marked = {
        d.name
        for d in sample
        if any(
            known.inside.search(str(m.get(field) or ""))
            for m in d.messages
            for field in ("content", "tool", "tools")
        )
    }
    benign = [(d, done) for d, done in zip(sample, trained, strict=True) if d.name not in marked]
    other = [
        d.name
        for d, done in benign
        if not _equal(done, *apply_chat_template(tokenizer, d.messages))
    ]
    dropped = [
        d.name for d in sample if not _written(d.messages, rendered_text(tokenizer, d.messages))
    ]
    thinking = [
        d.name
        for d in sample
        if any(
            known.found.search(str(m["content"])) for m in d.messages if m["role"] == "assistant"
        )
    ]
    texts = [(d.name, str(m["content"])) for d in sample for m in d.messages]
    lost = sorted(
        {
            name
            for (name, text), ids in zip(
                texts, chat_format.encode_texts(tokenizer, [text for _, text in texts]), strict=True
            )
            if chat_format.decode(tokenizer, ids).strip() != text.strip()
        }
    )
    return [
        _none(
            "prompts that differ from training",
            apart,
            "the prompt of generation must be the beginning of the row trained on, up to the first token under loss: "
            "mend the template's add_generation_prompt, or choose a template by name (chatml, llama3, zephyr, plain)",
        ),
        gate(
            "share that the tokenizer's chat template renders otherwise",
            len(other) / len(sample),
            0.0,
            not other,
            "programs that load the model would show it other tokens than it learnt, or another mask: choose a template by name (chatml, llama3, zephyr, plain)",
            other,
        ),
        gate(
            "share of dialogues compared with that template",
            len(benign) / len(sample),
            0.0,
            bool(benign),
            "every text spells a control token, so nothing could be compared with what other programs would render: look at the rows",
            sorted(marked),
        ),
        gate(
            "share of answers that spell control tokens",
            len(thinking) / len(sample),
            0.01,
            len(sample) < MANY or len(thinking) <= 0.01 * len(sample),
            "they are trained as ordinary text, never as the tokens themselves: if the model is to make such tokens (<think>), it will not learn it from these rows",
            thinking,
        ),
        _none(
            "dialogues of which the template leaves something out",
            dropped,
            "the template drops or changes turns (a system turn? old answers?): take another template, or take these turns out of the data",
        ),
        gate(
            "share of texts lost in the tokenizer",
            len(lost) / len(sample),
            0.1,
            len(lost) <= 0.1 * len(sample),
            "the tokenizer cannot spell these texts (unknown characters, case): choose a byte-level one (tokenizer=bpe)",
            lost,
        ),
    ]


def apply_chat_template(
    tokenizer: Any, messages: Sequence[Message], prompt: bool = False
) -> tuple[list[int], list[int]]:
    """(ids, mask of what the assistant says) by transformers' own ``apply_chat_template``, as other programs make them; no mask without marks of generation."""
    template = template_of(tokenizer)
    masked = marks_generation(template)
    read, tools = template_fields(messages, template)
    made = tokenizer.apply_chat_template(
        read,
        tools=tools,
        chat_template=template,
        tokenize=True,
        return_dict=True,
        add_generation_prompt=prompt,
        return_assistant_tokens_mask=masked,
    )
    return list(made["input_ids"]), list(made["assistant_masks"]) if masked else []


def _equal(ours: Rendered, ids: Sequence[int], mask: Sequence[int]) -> bool:
    return ours.ids == ids and (not mask or ours.supervised == [bool(on) for on in mask])


def _written(messages: Sequence[Message], text: str) -> bool:
    """Whether what everybody said stands in the text, in order, as it is or as JSON (a tool's argument may be written another way)."""
    at = 0
    for m in messages:
        if m["role"] == "assistant" and m.get("tool"):
            continue
        content = encode.replace_surrogates(str(m["content"])).strip()
        found = [
            (text.find(form, at), len(form))
            for form in (
                content,
                json.dumps(content, ensure_ascii=False)[1:-1],
                json.dumps(content)[1:-1],
            )
        ]
        found = [(place, size) for place, size in found if place >= 0]
        if not found:
            return False
        at = sum(found[0])
    return True


def check_model(folder: Path, tokenizer: Any) -> list[Gate]:
    """Every token has a row in the embeddings of the model in ``folder``."""
    rows = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("vocab_size", 0)
    return (
        [
            gate(
                "tokens without an embedding",
                max(0, len(tokenizer) - rows),
                0,
                len(tokenizer) <= rows,
                "use the tokenizer that the model was trained with",
            )
        ]
        if rows
        else []
    )


def check_left_out(dropped: Sequence[str], total: int, cure: str) -> Gate:
    """How many dialogues are left out for their length."""
    return gate(
        "share of dialogues too long",
        len(dropped) / max(total, 1),
        0.5,
        len(dropped) <= 0.5 * total,
        f"most of the data would be left out: {cure}",
        dropped,
    )


def enforce(found: list[Gate], ctx: Context, allow: Sequence[str] = ()) -> None:
    """Write gates.json; raises StageError naming every failed gate that is not allowed, its rows and its cure."""
    keys = {key(g): g for g in found}
    for name in allow:
        if name.replace(" ", "_") not in keys:
            raise StageError(
                f"{ctx.step}.allow names {name!r}, which is no gate of this step.{near(name, list(keys))} Gates: {', '.join(keys)}"
            )
        keys[name.replace(" ", "_")]["allowed"] = True
    if distributed.first_process():
        tables.write_json(ctx.out / "gates.json", found)
    for g in found:
        if g["allowed"] and not g["passed"]:
            ctx.say(f"{ctx.step}: {describe(g)}; allowed by {ctx.step}.allow")
    bad = [g for g in found if not g["passed"] and not g["allowed"]]
    if bad:
        raise StageError(
            f"step {ctx.step!r} is not started, its data would train something else:\n"
            + "\n".join(f"  {describe(g)}: {g['cure']}" for g in bad)
            + f"\nLook at the rows: llmstages inspect {ctx.step}. To train all the same: {ctx.step}.allow=[{','.join(map(key, bad))}]"
        )


def renderable(found: list[Gate], ctx: Context) -> None:
    """Stop at once where turns cannot be rendered."""
    if any(g["gate"] in (UNKNOWN_ROLES, NO_TEXT) and not g["passed"] for g in found):
        enforce(found, ctx)


def key(found: Gate) -> str:
    """The name of a gate as ``allow`` takes it."""
    return found["gate"].replace(" ", "_").replace("'", "")


def describe(found: Gate) -> str:
    """A gate in a line: value, limit, examples."""
    rows = (
        f" ({', '.join(found['rows'])}{', ...' if found['value'] > len(found['rows']) else ''})"
        if found["rows"]
        else ""
    )
    return f"{found['gate']}: {found['value']:g} (limit {found['limit']:g}){rows}"


def require_template(tokenizer: Any, where: str) -> None:
    """Render a few dialogues; StageError where training and use would see other tokens, or no turn would end."""
    asked, answered = (
        message("user", "Where is it?\n\n- here"),
        message("assistant", "In 12 places.\n\nNot far."),
    )
    some = [
        [asked, answered],
        [asked, answered, message("user", "And"), message("assistant", "\n\nThere.")],
    ]
    bad = [
        g
        for g in check_dialogue_template(
            [Dialogue(f"probe {i}", messages) for i, messages in enumerate(some)], tokenizer
        )
        if not g["passed"] and not g["gate"].startswith("share of texts")
    ]
    if bad:
        raise StageError(
            f"{where}: this chat template does not fit this tokenizer: "
            + "; ".join(f"{describe(g)}: {g['cure']}" for g in bad)
        )
