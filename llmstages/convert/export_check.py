"""Whether an exported model says what its source says: the same prompts, the same tokens.

Prompts are rendered by the code that training used (text/chat_format.py) and continued greedily
for a few tokens. Both models compute in float32, so that weights of the same type must give the
same tokens; weights that were rounded may differ where two tokens are almost equally likely.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmstages.convert.gguf_reader import read_gguf
from llmstages.core.errors import StageError
from llmstages.text import chat_format, generate
from llmstages.text.messages import message

PROMPTS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "What is 12 + 34?",
    "Name three animals.",
    "Say hello in German.",
    "What color is the sky?",
    "Explain what a computer is.",
    "Who wrote Hamlet?",
    "List the days of the week.",
    "What is the opposite of hot?",
    "Write a Python function that adds two numbers.",
    "Translate 'good morning' into Spanish.",
    "How many legs does a spider have?",
    "Give me a rhyme for 'cat'.",
    "日本の首都はどこですか？",
    "Où se trouve la tour Eiffel ?",
    "Is 7 a prime number? Answer yes or no.",
    "Finish: Once upon a time",
    "What's 3.14159 rounded to 2 digits?",
    "Tell me a fact about 🐘.",
)
NEW_TOKENS = 16
# Rounding moves few first tokens; a wrong conversion moves almost all.
LEAST_SAME_FIRST = 0.5


@dataclass(frozen=True)
class Continuations:
    """What a model made of the prompts.

    Attributes:
        prompts: token ids of each prompt.
        replies: token ids of each continuation, with its stop token.
    """

    prompts: list[list[int]]
    replies: list[list[int]]


@dataclass(frozen=True)
class Agreement:
    """How far two models agree on the prompts.

    Attributes:
        total: number of prompts.
        same_prompts: prompts with the same token ids.
        same_replies: prompts whose whole continuation is the same.
        same_first: prompts with the same first token.
        by: the program that computed the exported model.
    """

    total: int
    same_prompts: int
    same_replies: int
    same_first: int
    by: str

    def __str__(self) -> str:
        line = f"{self.same_replies} of {self.total} prompts give the same tokens ({self.by})"
        if self.same_prompts < self.total:
            line += f"; {self.total - self.same_prompts} prompts are split differently"
        if self.same_replies < self.total:
            line += f"; the first token is the same in {self.same_first}"
        return line


def continue_prompts(
    folder: Path,
    advance: Callable[[float], None] | None = None,
    texts: Sequence[str] = (),
) -> Continuations:
    """Continue the prompts with the model of a Hugging Face folder, in float32.

    Args:
        texts: rendered prompts, which are encoded as they are; by default the model's own chat
            template renders PROMPTS.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if texts:
        prompts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    else:
        prompts = _render(tokenizer)
    replies, _ = generate.generate(
        model, tokenizer, prompts, max_new_tokens=NEW_TOKENS, batch=4, advance=advance
    )
    return Continuations(prompts, replies)


def _render(tokenizer: Any) -> list[list[int]]:
    """The prompts as a chat, or as texts to continue where there is no chat template."""
    if not tokenizer.chat_template:
        return chat_format.document_ids(tokenizer, PROMPTS)
    dialogues = [[message("user", text)] for text in PROMPTS]
    try:
        return chat_format.prompt_ids(tokenizer, dialogues)
    except StageError:
        # A template that cannot be trained on can still be exported.
        options = {"add_generation_prompt": True, "return_dict": False}
        return [tokenizer.apply_chat_template(dialogue, **options) for dialogue in dialogues]


def _texts(source: Continuations, folder: Path) -> list[str]:
    """The rendered prompts as texts, control tokens included."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    return [tokenizer.decode(ids, **options) for ids in source.prompts]


def check_folder(source: Continuations, folder: Path) -> Agreement:
    """Compare a Hugging Face folder with its source."""
    return compare(source, continue_prompts(folder), "transformers")


def check_gguf(source: Continuations, file: Path, folder: Path) -> Agreement:
    """Compare a GGUF file with its source, in llama.cpp where its Python package is installed.

    Args:
        folder: the Hugging Face folder that the file was written from.
    """
    texts = _texts(source, folder)
    if has_llama_cpp():
        return compare(source, _in_llama_cpp(source, file, texts), "llama.cpp")
    with tempfile.TemporaryDirectory() as scratch:
        read_gguf(file, Path(scratch, "model"), lambda line: None)
        read_back = continue_prompts(Path(scratch, "model"), texts=texts)
    return compare(
        source, read_back, "read back by transformers; llama-cpp-python is not installed"
    )


def has_llama_cpp() -> bool:
    """Whether the package llama-cpp-python can be imported."""
    from importlib.util import find_spec

    return find_spec("llama_cpp") is not None


def _in_llama_cpp(source: Continuations, file: Path, texts: Sequence[str]) -> Continuations:
    """The prompts as llama.cpp tokenizes them, and its greedy continuations of the source's ids."""
    import numpy as np
    from llama_cpp import Llama  # type: ignore[import-not-found]

    longest = max(len(ids) for ids in source.prompts) + NEW_TOKENS
    model = Llama(str(file), n_ctx=max(longest, 64), logits_all=True, verbose=False)
    prompts, replies = [], []
    try:
        for text, ids, expected in zip(texts, source.prompts, source.replies, strict=True):
            prompts.append(model.tokenize(text.encode(), add_bos=False, special=True))
            model.reset()
            model.eval(ids)
            reply: list[int] = []
            while len(reply) < len(expected):
                reply.append(int(np.argmax(model.scores[model.n_tokens - 1])))
                model.eval(reply[-1:])
            replies.append(reply)
    finally:
        model.close()  # otherwise it complains when Python ends
    return Continuations(prompts, replies)


def compare(source: Continuations, other: Continuations, by: str) -> Agreement:
    """Count the prompts on which two models agree."""
    return Agreement(
        total=len(source.prompts),
        same_prompts=_count_same(source.prompts, other.prompts),
        same_replies=_count_same(source.replies, other.replies),
        same_first=_count_same(
            [reply[:1] for reply in source.replies], [reply[:1] for reply in other.replies]
        ),
        by=by,
    )


def _count_same(left: Sequence[Sequence[int]], right: Sequence[Sequence[int]]) -> int:
    return sum(list(a) == list(b) for a, b in zip(left, right, strict=True))


def require(agreement: Agreement, exact: bool) -> None:
    """Refuse an export that does not agree with its source.

    Args:
        exact: the weights have the type of the source, so every token must be the same.

    Raises:
        StageError: they do not agree.
    """
    if exact:
        enough = agreement.same_replies == agreement.total
    else:
        enough = agreement.same_first >= LEAST_SAME_FIRST * agreement.total
    if agreement.same_prompts == agreement.total and enough:
        return
    raise StageError(
        f"the exported model does not say what its source says: {agreement}. Nothing was "
        "written. Please report it with the names of the model and its tokenizer; --no-check "
        "writes it all the same"
    )
