"""The documents of pretraining: drawn from their sources, cut to rows, and split for validation.

A corpus is encoded once into memory-mapped tokens (llmstages/data/token_store.py), so it may be
larger than memory. Dialogues stay in memory.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context
from llmstages.data import dialogues, token_store
from llmstages.data.overlap import HeldOutNgrams
from llmstages.data.segments import Segments, Tokens
from llmstages.text import chat_format

NEAR_COPY = 0.5  # share of a document's n-grams from which it is no longer new
MAX_HELD_OUT = 1 << 24  # tokens of held-out documents at most, of all corpora


class Documents(NamedTuple):
    """The segments of all sources: to train on, and for validation."""

    train: Segments
    held_out: Segments


def load_documents(config: Any, ctx: Context, tokenizer: Any) -> Documents:
    """Draw, cut and split the documents of all sources.

    A document that occurs twice is never held out, nor one of which most stands in other documents:
    the model would be measured on what it was trained on. Of too few documents to hold one out,
    such as a single book, the end is held out.

    Args:
        config: a CausalLMConfig, resolved or not.

    Raises:
        StageError: nothing to train on, or a weight for a step that is not an input.
    """
    from llmstages.train.trainer import check_names

    sources = [*ctx.many("corpus"), *ctx.many("dialogues")]
    check_names(ctx, "mixture_weights", list(config.mixture_weights), sources)
    # One generator for all sources: their order is part of the result.
    rng = random.Random(config.seed)
    parts = [_drawn(config, ctx, corpus, tokenizer, rng) for corpus in ctx.many("corpus")]
    drawn = dialogues.load(ctx.many("dialogues"), config.mixture_weights, rng)
    chats = Segments.of(dialogues.render_dialogues(tokenizer, drawn))
    _limit(parts, ctx)
    _train_on_copies(parts, ctx)
    _train_on_near_copies(parts, chats, ctx)
    has_copies = any(part.has_copies for part in parts)
    texts = Segments.join([part.cut(~part.held_out, config.max_length) for part in parts])
    held_out = Segments.join([part.cut(part.held_out, config.max_length) for part in parts])
    if len(texts) > 1 and not len(held_out) and not has_copies:
        texts, held_out = _hold_out_end(texts, config.validation_stride, ctx)
    train = Segments.join([texts, chats])
    if not len(train):
        raise StageError(
            f"step {ctx.step!r} has no documents to train on; wire steps.{ctx.step}.corpus"
        )
    if not len(held_out):
        reason = "too few documents to hold any out"
        if has_copies:
            reason = "no document is held out, since all that are due occur twice"
        ctx.say(
            f"{ctx.step}: {reason} (validation_stride={config.validation_stride}): "
            "the validation loss is of a training document"
        )
        held_out = train.first(1)
    return Documents(train, held_out)


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
        end: id that is the target behind the last token of a document; None if there is none.
    """

    shard: Any
    drawn: Any
    held_out: Any
    has_copies: bool
    bos: int
    end: int | None

    def cut(self, chosen: Any, max_length: int) -> Segments:
        """The segments of some of the documents."""
        starts, lengths = self.bounds(chosen)
        # Every segment begins with BOS, which needs a place in the row.
        tokens = Tokens(self.shard.ids, bos=self.bos, end=self.end)
        return Segments.cut(tokens, starts, lengths, max_length - 1)

    def whole(self, chosen: Any) -> Segments:
        """Some of the documents, each as one segment without BOS."""
        starts, lengths = self.bounds(chosen)
        longest = max(1, int(lengths.max(initial=0)))
        return Segments.cut(Tokens(self.shard.ids), starts, lengths, longest)

    def bounds(self, chosen: Any) -> tuple[Any, Any]:
        """(starts, lengths) in tokens of some of the documents."""
        documents = self.drawn[chosen]
        starts = self.shard.starts[documents]
        return starts, self.shard.starts[documents + 1] - starts


def _drawn(
    config: Any, ctx: Context, corpus: Artifact, tokenizer: Any, rng: random.Random
) -> Drawn:
    """The documents of a corpus; none that occurs twice in it is held out.

    With a weight above 1 a document is drawn several times, which makes it no copy: it is held out
    once, and not trained on.
    """
    import numpy as np

    shard = token_store.tokens(ctx, corpus, tokenizer)
    drawn = dialogues.share_of(len(shard), config.mixture_weights.get(corpus.name, 1.0), rng)
    _, first_places = np.unique(drawn, return_index=True)
    is_first = np.zeros(len(drawn), bool)
    is_first[first_places] = True
    documents = drawn[is_first]
    # shard.same gives documents of equal text the same number.
    copies = np.bincount(shard.same[documents], minlength=len(shard))[shard.same[documents]]
    is_due = np.arange(len(documents)) % config.validation_stride == config.validation_stride - 1
    held_out = is_first & np.isin(drawn, documents[is_due & (copies == 1)])
    is_repetition = ~is_first & np.isin(drawn, drawn[held_out])
    return Drawn(
        shard,
        drawn[~is_repetition],
        held_out[~is_repetition],
        bool((copies > 1).any()),
        tokenizer.bos_token_id,
        chat_format.document_end(tokenizer),
    )


def _limit(parts: Sequence[Drawn], ctx: Context) -> None:
    """Hold out no more than validation can use; the rest of a large corpus is trained on."""
    import numpy as np

    for part in parts:
        _, lengths = part.bounds(part.held_out)
        keep = np.cumsum(lengths) <= MAX_HELD_OUT // len(parts)
        keep[:1] = True
        if not keep.all():
            ctx.say(
                f"{ctx.step}: {keep.sum():,} documents are held out, which is enough to measure "
                f"on; {(~keep).sum():,} more would be by validation_stride and are trained on"
            )
            part.held_out[part.held_out] = keep


def _train_on_near_copies(parts: Sequence[Drawn], chats: Segments, ctx: Context) -> None:
    """Hold out no document of which most stands in what is trained on, and say how many.

    Where that is all of them, they stay: their loss then says little, which is said.
    """
    import numpy as np

    held_out = [part.whole(part.held_out) for part in parts]
    ngrams = HeldOutNgrams(Segments.join(held_out))
    ngrams.mark(chats)
    for part in parts:
        ngrams.mark(part.whole(~part.held_out))
    is_near = ngrams.shares() > NEAR_COPY
    if not is_near.any():
        return
    found = f"{is_near.sum():,} of {len(is_near):,} held-out documents"
    share = f"more than {NEAR_COPY:.0%} of whose text also stands in documents that are trained on"
    if is_near.all():
        ctx.say(
            f"{ctx.step}: of every held-out document more than {NEAR_COPY:.0%} also stands in "
            "documents that are trained on, so the validation loss is partly of memory"
        )
        return
    ctx.say(f"{ctx.step}: {found} are trained on instead, {share}")
    sizes = [len(segments) for segments in held_out]
    for part, near in zip(parts, np.split(is_near, np.cumsum(sizes)[:-1]), strict=True):
        part.held_out[part.held_out] = ~near


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
