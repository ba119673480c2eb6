"""What each kind of artifact must contain, so that any stage can read what any other stage wrote.

Every artifact is a folder in a public format beside its ``record.json``. Files are deterministic: equal config and
inputs give equal bytes, so timings live in the record alone. ``data/`` is a ``datasets`` folder (Arrow, see tables.py).

documents     data/: id, url (str), body (binary), media ("text/html" | "text/plain"). Optional: gold.jsonl
              {url, keep, rule}; pages.warc.gz; dropped/ (as in corpus) for records that could not be read.
corpus        data/: id, url, text. dropped/: id, url, rule, value, limit (str), excerpt. funnel.json: list of
              {rule, kind, seen, dropped, edited, seconds?}; gold.json when the documents carry gold labels.
tokenizer     a Hugging Face tokenizer folder; view.json: {text, tokens: [{id, text, bytes}]}.
model         a Hugging Face model folder with its tokenizer. Training also writes log.jsonl (one object an event:
              step, loss, ... as the trainer logged it, no times) and gates.json (gates.py); pretraining
              samples.jsonl: {step, prompt, text} and, where a depth decided, derived.json.
reward_model  the same with a sequence-classification head of one label.
dialogues     data/: messages (list of {role, content, tool}), plus any columns. role: system | user | assistant |
              tool. ``tool`` is "" except on a call (role assistant, content = the argument of the call, e.g. the
              query) and on its result (role tool). Optional: tools, JSON text of the schemas of the tools the
              assistant had ("" where none).
preferences   data/: prompt, chosen, rejected (lists of messages as above), plus any columns (``kind``).
problems      data/: prompt (messages), answer (str), task, group (str), meta (JSON text), plus any columns.
scores        scores.json: {task: {group: {model: {metric: value}}}}; answers.jsonl: {prompt, model, answer, task};
              the same prompts for every model.
report        index.html, claims.json: [{name, value, target, met}].
"""

from __future__ import annotations

from pathlib import Path

REQUIRED: dict[str, tuple[str, ...]] = {
    "documents": ("data",),
    "corpus": ("data", "dropped", "funnel.json"),
    "tokenizer": ("tokenizer_config.json", "view.json"),
    "model": ("config.json", "tokenizer_config.json"),
    "reward_model": ("config.json", "tokenizer_config.json"),
    "dialogues": ("data",),
    "preferences": ("data",),
    "problems": ("data",),
    "scores": ("scores.json", "answers.jsonl"),
    "report": ("index.html", "claims.json"),
}


def missing(kind: str, folder: Path) -> list[str]:
    """Names of required files that are not in the folder."""
    return [name for name in REQUIRED.get(kind, ()) if not (folder / name).exists()]


def accepts(declared: str, kind: str) -> bool:
    """Whether an input declared as e.g. "problems|dialogues?" takes an artifact of this kind."""
    wanted = declared.rstrip("?*")
    return not wanted or kind in wanted.split("|")
