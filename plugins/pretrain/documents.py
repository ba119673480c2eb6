"""The documents of pretraining: drawn from their sources, cut to rows, and split for validation.

A corpus is encoded once into memory-mapped tokens (llmstages/data/token_store.py), so it may be
larger than memory. Dialogues stay in memory.
"""

from __future__ import annotations

import random
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context
from llmstages.data import dialogues, token_store
from llmstages.data.packing import Segments, Tokens


def load_documents(config: Any, ctx: Context, tokenizer: Any) -> tuple[Segments, Segments]:
    """The segments of all sources.

    Args:
        config: a CausalLMConfig, resolved or not.

    Returns:
        (segments to train on, segments for validation). A document that occurs twice is never held
        out: the model would be measured on what it was trained on. Of too few documents to hold one
        out, such as a single book, the end is held out.

    Raises:
        StageError: nothing to train on, or a weight for a step that is not an input.
    """
    from llmstages.train.trainer import check_names

    sources = [*ctx.many("corpus"), *ctx.many("dialogues")]
    check_names(ctx, "mixture_weights", list(config.mixture_weights), sources)
    # One generator for all sources: their order is part of the result.
    rng = random.Random(config.seed)
    train, validation = [], []
    has_copies = False
    for corpus in ctx.many("corpus"):
        train_part, validation_part, copied = _split_corpus(config, ctx, corpus, tokenizer, rng)
        train.append(train_part)
        validation.append(validation_part)
        has_copies |= copied
    texts, validation_segments = Segments.join(train), Segments.join(validation)
    if len(texts) > 1 and not len(validation_segments) and not has_copies:
        texts, validation_segments = _hold_out_end(texts, config.validation_stride, ctx)
    drawn = dialogues.load(ctx.many("dialogues"), config.mixture_weights, rng)
    chats = Segments.of(dialogues.render_dialogues(tokenizer, drawn))
    train_segments = Segments.join([texts, chats])
    if not len(train_segments):
        raise StageError(
            f"step {ctx.step!r} has no documents to train on; wire steps.{ctx.step}.corpus"
        )
    if not len(validation_segments):
        ctx.say(
            f"{ctx.step}: too few documents to hold any out "
            f"(validation_stride={config.validation_stride}): "
            "the validation loss is of a training document"
        )
        validation_segments = train_segments.first(1)
    return train_segments, validation_segments


def _hold_out_end(segments: Segments, stride: int, ctx: Context) -> tuple[Segments, Segments]:
    """(segments to train on, those at the end), where there are too few documents to hold one out.

    There are at least two segments, and no document occurs twice.
    """
    count = len(segments)
    held_out = max(1, count // stride)
    ctx.say(
        f"{ctx.step}: too few documents to hold any out (validation_stride={stride}): "
        f"the last {held_out} of {count} parts of their text are held out instead"
    )
    return segments.first(count - held_out), segments.after(count - held_out)


def _split_corpus(
    config: Any, ctx: Context, corpus: Artifact, tokenizer: Any, rng: random.Random
) -> tuple[Segments, Segments, bool]:
    """(segments to train on, segments for validation, whether a document occurs twice)."""
    import numpy as np

    shard = token_store.tokens(ctx, corpus, tokenizer)
    drawn = dialogues.share_of(len(shard), config.mixture_weights.get(corpus.name, 1.0), rng)
    # shard.same gives equal documents the same number.
    copies = np.bincount(shard.same[drawn], minlength=len(shard))[shard.same[drawn]]
    is_due = np.arange(len(drawn)) % config.validation_stride == config.validation_stride - 1
    held_out = is_due & (copies == 1)
    tokens = Tokens(shard.ids, bos=tokenizer.bos_token_id)

    def cut(documents: Any) -> Segments:
        starts = shard.starts[documents]
        lengths = shard.starts[documents + 1] - starts
        # Every segment begins with BOS, which needs a place in the row.
        return Segments.cut(tokens, starts, lengths, config.max_length - 1)

    return cut(drawn[~held_out]), cut(drawn[held_out]), bool((copies > 1).any())
