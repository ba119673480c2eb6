"""Byte-level BPE between ``tokenizer.json`` and the metadata of GGUF.

GGUF has no pre-tokenizer, only a name for it (``tokenizer.ggml.pre``), and llama.cpp has the
regular expressions of each name in its code (src/llama-vocab.cpp). A wrong name splits words
differently without any message, so a name or a pre-tokenizer that is not in the table here is
refused. Other kinds of tokenizers (sentencepiece) are left to transformers, which reads but does
not write them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.convert.gguf_header import Header
from llmstages.core.errors import StageError
from llmstages.text.generation_tags import strip_generation
from llmstages.text.pretokenize import GPT4, QWEN
from llmstages.text.templates import template_of

BYTE_LEVEL_BPE = "gpt2"  # what GGUF calls byte-level BPE of any model
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5  # tokenizer.ggml.token_type
# Named token -> its key in GGUF.
NAMED_TOKENS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}

Spec = Mapping[str, Any]  # a part of a tokenizer.json


def _split(pattern: str) -> list[Spec]:
    """The pre-tokenizer of GPT-4's family: an expression, then bytes as letters."""
    return [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
    ]


_GPT2: list[Spec] = [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]
_DIGITS: list[Spec] = [{"type": "Digits", "individual_digits": True}, *_GPT2]


@dataclass(frozen=True)
class PreTokenizer:
    """What a name of llama.cpp means.

    Attributes:
        parts: the pre-tokenizers of tokenizer.json, in order.
        ignore_merges: a word that is in the vocabulary is one token, whatever the merges say.
        adds_bos: the sequence begins with BOS where the file does not say.
        normalizer: of tokenizer.json. llama.cpp has none; Qwen's own tokenizer has NFC.
    """

    parts: Sequence[Spec]
    ignore_merges: bool = False
    adds_bos: bool = False
    normalizer: Spec | None = None


# The first name of equal entries is the one that is written.
PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "gpt-2": PreTokenizer(_GPT2),
    "smollm": PreTokenizer(_DIGITS),
    "llama-bpe": PreTokenizer(_split(GPT4), ignore_merges=True, adds_bos=True),
    "smaug-bpe": PreTokenizer(_split(GPT4)),
    "qwen2": PreTokenizer(_split(QWEN), normalizer={"type": "NFC"}),
    "olmo": PreTokenizer(_GPT2),
    "starcoder": PreTokenizer(_DIGITS),
    "refact": PreTokenizer(_DIGITS),
    "command-r": PreTokenizer(_DIGITS),
    "codeshell": PreTokenizer(_DIGITS),
    "exaone": PreTokenizer(_DIGITS),
    "llama3": PreTokenizer(_split(GPT4), ignore_merges=True, adds_bos=True),
    "llama-v3": PreTokenizer(_split(GPT4), ignore_merges=True, adds_bos=True),
    "dbrx": PreTokenizer(_split(GPT4)),
    "deepseek-r1-qwen": PreTokenizer(_split(QWEN)),
}


@dataclass(frozen=True)
class TokenizerFields:
    """A byte-level BPE tokenizer as GGUF stores it.

    Attributes:
        tokens: by id; types: of each token; merges: "left right", in order.
        pre: name of the pre-tokenizer.
        named: bos, eos, unk and pad -> id, for those there are.
        add_bos, add_eos: whether encoding a text adds them.
        chat_template: without the tags of transformers; "" for none.
        notes: where llama.cpp will differ, for people.
    """

    tokens: list[str]
    types: list[int]
    merges: list[str]
    pre: str
    named: dict[str, int]
    add_bos: bool
    add_eos: bool
    chat_template: str
    notes: tuple[str, ...] = ()


# --- from GGUF ---


def build_tokenizer(header: Header) -> Any:
    """The PreTrainedTokenizerFast of a file with byte-level BPE; every id is the file's.

    Raises:
        StageError: the pre-tokenizer is not known, or the vocabulary contradicts itself.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    metadata = header.metadata
    pre = PRE_TOKENIZERS.get(str(metadata.get("tokenizer.ggml.pre", "")))
    if pre is None:
        raise StageError(_unknown_name(header))
    tokens = header.tokens
    types = metadata.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    engine = Tokenizer.from_str(json.dumps(_tokenizer_json(header, pre, types)))
    for id, text in enumerate(tokens):
        if types[id] != UNUSED and engine.token_to_id(text) != id:
            raise StageError(
                f"{header.path} has the token {text!r} twice, as {id} and "
                f"{engine.token_to_id(text)}: its vocabulary is damaged"
            )
    names = {}
    for name, key in NAMED_TOKENS.items():
        id = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if id is not None and id < len(tokens):
            names[f"{name}_token"] = tokens[id]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=engine,
        chat_template=metadata.get("tokenizer.chat_template") or None,
        **names,
    )
    _add_to_texts(tokenizer, header, pre)
    return tokenizer


def _unknown_name(header: Header) -> str:
    name = header.metadata.get("tokenizer.ggml.pre")
    if name is None:
        problem = "does not name its pre-tokenizer (tokenizer.ggml.pre)"
    else:
        problem = f"has the pre-tokenizer {name!r}, which is not known here"
    return (
        f"{header.path} {problem}, so words would be split differently from how the model was "
        f"trained. Known: {', '.join(PRE_TOKENIZERS)}. Use the model's Hugging Face folder "
        "instead: steps.STEP.model=FOLDER or hub:ORG/NAME@REVISION"
    )


def _tokenizer_json(header: Header, pre: PreTokenizer, types: Sequence[int]) -> dict[str, Any]:
    """The tokenizer.json with every token of the file, except unused ones at the end."""
    tokens = header.tokens
    used = [id for id, type in enumerate(types) if type != UNUSED]
    vocabulary = {tokens[id]: id for id in range(max(used, default=-1) + 1)}
    added = []
    for id in used:
        if types[id] in (CONTROL, USER_DEFINED):
            added.append(_added_token(id, tokens[id], special=types[id] == CONTROL))
    merges = [merge.split(" ", 1) for merge in header.metadata.get("tokenizer.ggml.merges", [])]
    parts = [{"trim_offsets": True, **part} for part in pre.parts]
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": pre.normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": parts},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {
            "type": "BPE",
            "vocab": vocabulary,
            "merges": merges,
            "ignore_merges": pre.ignore_merges,
        },
    }


def _added_token(id: int, text: str, special: bool) -> dict[str, Any]:
    return {
        "id": id,
        "content": text,
        "special": special,
        "normalized": False,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
    }


def _add_to_texts(tokenizer: Any, header: Header, pre: PreTokenizer) -> None:
    """Let encoding add BOS and EOS where the file says so."""
    from tokenizers import processors

    metadata = header.metadata
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", pre.adds_bos)
    add_eos = metadata.get("tokenizer.ggml.add_eos_token", False)
    before = [tokenizer.bos_token] if add_bos and tokenizer.bos_token else []
    after = [tokenizer.eos_token] if add_eos and tokenizer.eos_token else []
    if not before and not after:
        return
    special = [(text, tokenizer.convert_tokens_to_ids(text)) for text in {*before, *after}]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after], pair=None, special_tokens=special
    )


# --- to GGUF ---


def tokenizer_fields(tokenizer: Any, vocab_size: int) -> TokenizerFields:
    """A tokenizer as GGUF stores it.

    Args:
        vocab_size: rows of the model's embeddings; those beyond the tokenizer become unused tokens.

    Raises:
        StageError: llama.cpp would split or encode texts differently.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise StageError(_refusal(f"it is a {type(tokenizer).__name__} without tokenizer.json"))
    spec = json.loads(backend.to_str())
    pre = _name_of(spec)
    _refuse_unknown_settings(spec)
    tokens, types = _token_list(tokenizer, spec["added_tokens"], vocab_size)
    merges = []
    for merge in spec["model"]["merges"]:
        merges.append(merge if isinstance(merge, str) else " ".join(merge))
    named = {}
    for name in NAMED_TOKENS:
        id = getattr(tokenizer, f"{name}_token_id")
        if id is not None:
            named[name] = id
    add_bos, add_eos = _additions(tokenizer)
    notes = []
    if spec["normalizer"]:
        notes.append(
            f"the tokenizer normalizes texts ({spec['normalizer']['type']}) and llama.cpp does "
            "not: a text with combining marks may get other tokens there"
        )
    return TokenizerFields(
        tokens=tokens,
        types=types,
        merges=merges,
        pre=pre,
        named=named,
        add_bos=add_bos,
        add_eos=add_eos,
        chat_template=strip_generation(template_of(tokenizer)),
        notes=tuple(notes),
    )


def _name_of(spec: Spec) -> str:
    """The name of llama.cpp for a pre-tokenizer."""
    model = spec["model"]
    if model["type"] != "BPE":
        raise StageError(_refusal(f"its model is {model['type']}"))
    parts = [_without_offsets(part) for part in _parts(spec["pre_tokenizer"])]
    ignore_merges = bool(model.get("ignore_merges"))
    for name, pre in PRE_TOKENIZERS.items():
        if list(pre.parts) == parts and pre.ignore_merges == ignore_merges:
            return name
    shown = json.dumps(parts)[:300]
    raise StageError(_refusal(f"llama.cpp has no name for its pre-tokenizer {shown}"))


def _parts(pre_tokenizer: Spec | None) -> Sequence[Spec]:
    if pre_tokenizer is None:
        return []
    if pre_tokenizer["type"] == "Sequence":
        return pre_tokenizer["pretokenizers"]
    return [pre_tokenizer]


def _without_offsets(part: Spec) -> Spec:
    """The part without what changes positions in the text only."""
    return {key: value for key, value in part.items() if key != "trim_offsets"}


def _refuse_unknown_settings(spec: Spec) -> None:
    """Settings of tokenizer.json that llama.cpp has not, and that change ids."""
    model, normalizer = spec["model"], spec["normalizer"]
    if normalizer and normalizer.get("type") != "NFC":
        raise StageError(_refusal(f"its normalizer is {normalizer.get('type')}"))
    for setting in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "dropout"):
        if model.get(setting):
            raise StageError(_refusal(f"its model has {setting}={model[setting]!r}"))
    for token in spec["added_tokens"]:
        for setting in ("lstrip", "rstrip", "single_word"):
            if token[setting]:
                raise StageError(_refusal(f"its token {token['content']!r} has {setting}=true"))


def _token_list(
    tokenizer: Any, added_tokens: Sequence[Spec], vocab_size: int
) -> tuple[list[str], list[int]]:
    """(text, type) of each id of the model."""
    by_id = {id: text for text, id in tokenizer.get_vocab().items()}
    if max(by_id) >= vocab_size:
        raise StageError(
            f"the tokenizer has the id {max(by_id)}, but the model has only {vocab_size} "
            "embeddings: they do not belong together"
        )
    added = {token["id"]: token for token in added_tokens}
    tokens, types = [], []
    for id in range(vocab_size):
        if id not in by_id:
            text, type = f"[PAD{id}]", UNUSED
        elif id not in added:
            text, type = by_id[id], NORMAL
        elif added[id]["special"]:
            text, type = by_id[id], CONTROL
        else:
            text, type = by_id[id], USER_DEFINED
        tokens.append(text)
        types.append(type)
    return tokens, types


def _additions(tokenizer: Any) -> tuple[bool, bool]:
    """Whether encoding a text adds BOS before it and EOS after it."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    for add_bos in (False, True):
        for add_eos in (False, True):
            if full == [*([bos] * add_bos), *plain, *([eos] * add_eos)]:
                return add_bos, add_eos
    raise StageError(_refusal(f"encoding 'a' gives {full} instead of {plain}: neither BOS nor EOS"))


def _refusal(why: str) -> str:
    return (
        f"this tokenizer cannot be written as GGUF: {why}. Byte-level BPE with the pre-tokenizers "
        "of GPT-2, SmolLM, Llama 3 and Qwen can. Export a folder instead (--to FOLDER) and convert "
        "it with convert_hf_to_gguf.py of llama.cpp"
    )
