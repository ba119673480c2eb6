"""The documents of pretraining: drawn from their sources, cut to rows, and split for validation.

A corpus is encoded once into memory-mapped tokens (llmstages/data/token_store.py), so it may be
larger than memory. Dialogues stay in memory.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    parts = [_drawn(config, ctx, corpus, tokenizer, rng) for corpus in ctx.many("corpus")]
    _train_on_copies(parts, ctx)
    has_copies = any(part.has_copies for part in parts)
    train = [part.cut(~part.held_out, config.max_length) for part in parts]
    validation = [part.cut(part.held_out, config.max_length) for part in parts]
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


EVERYTHING = slice(None)  # all documents that are drawn


@dataclass
class Drawn:
    """The documents that are drawn from one corpus.

    Attributes:
        shard: the encoded corpus.
        drawn: numbers of its documents, in order.
        held_out: which of them are for validation.
        has_copies: whether a document occurs twice.
        bos: id that every segment begins with.
    """

    shard: Any
    drawn: Any
    held_out: Any
    has_copies: bool
    bos: int

    def cut(self, chosen: Any, max_length: int) -> Segments:
        """The segments of some of the documents."""
        starts, lengths = self.bounds(chosen)
        # Every segment begins with BOS, which needs a place in the row.
        return Segments.cut(Tokens(self.shard.ids, bos=self.bos), starts, lengths, max_length - 1)

    def bounds(self, chosen: Any) -> tuple[Any, Any]:
        """(starts, lengths) in tokens of some of the documents."""
        documents = self.drawn[chosen]
        starts = self.shard.starts[documents]
        return starts, self.shard.starts[documents + 1] - starts


def _drawn(
    config: Any, ctx: Context, corpus: Artifact, tokenizer: Any, rng: random.Random
) -> Drawn:
    """The documents of a corpus; none that occurs twice in it is held out."""
    import numpy as np

    shard = token_store.tokens(ctx, corpus, tokenizer)
    drawn = dialogues.share_of(len(shard), config.mixture_weights.get(corpus.name, 1.0), rng)
    # shard.same gives equal documents the same number.
    copies = np.bincount(shard.same[drawn], minlength=len(shard))[shard.same[drawn]]
    is_due = np.arange(len(drawn)) % config.validation_stride == config.validation_stride - 1
    held_out = is_due & (copies == 1)
    return Drawn(shard, drawn, held_out, bool((copies > 1).any()), tokenizer.bos_token_id)


def _train_on_copies(parts: Sequence[Drawn], ctx: Context) -> None:
    """Hold out no document that another corpus has as well, and say how many these are."""
    count = 0
    for part in parts:
        others = [other for other in parts if other is not part]
        texts = _texts(part, part.held_out)
        copied = texts & set[bytes]().union(*(_texts(other, EVERYTHING, texts) for other in others))
        if copied:
            keep = [text not in copied for text in _ordered_texts(part, part.held_out)]
            part.held_out[part.held_out] = keep
            count += len(copied)
            part.has_copies = True
    if count:
        ctx.say(
            f"{ctx.step}: {count} documents are not held out, since another corpus has them as well"
        )


def _texts(part: Drawn, chosen: Any, wanted: set[bytes] | None = None) -> set[bytes]:
    """The documents as bytes of their tokens; with ``wanted`` only those of the same lengths."""
    return set(_ordered_texts(part, chosen, wanted))


def _ordered_texts(part: Drawn, chosen: Any, wanted: set[bytes] | None = None) -> Iterator[bytes]:
    import numpy as np

    starts, lengths = part.bounds(chosen)
    if wanted is not None:
        size = part.shard.ids.dtype.itemsize
        has_length = np.isin(lengths, [len(text) // size for text in wanted])
        starts, lengths = starts[has_length], lengths[has_length]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        yield part.shard.ids[start : start + length].tobytes()
