"""The decode loop of all generation: prompts in, the tokens that a model writes after them out.

``generate()`` of transformers reads a prompt as often as it is asked and computes each row until
the last one has ended. Here a prompt that stands in a batch several times, as in RL, is read once,
and rows that have ended leave the batch. Models whose memory of the past is more than keys and
values (state spaces, several inputs) go through ``generate()``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from llmstages.core.errors import StageError
from llmstages.text import chat_format

LEAVING = 1 / 8  # share of a batch that must have ended before it is made smaller: that copies
Rows = list[list[int]]


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    options: Mapping[str, Any],
    advance: Callable[[float], None] | None = None,
    is_complete: Callable[[Sequence[int]], bool] | None = None,
) -> tuple[Rows, list[list[float]]]:
    """Continue prompts (ids) as one batch.

    Args:
        model: a causal language model of transformers, with or without adapters.
        prompts: ids of each; none is empty.
        max_new_tokens: tokens written for each at most.
        options: ``eos_token_id`` (a list), ``pad_token_id``, ``do_sample`` and ``temperature``.
        advance: called with the number of prompts that are done, in proportion to their tokens.
        is_complete: whether the new ids of a prompt need no more, though they have no stop token.
            Models that go through ``generate()`` are not asked, and write on.

    Raises:
        StageError: the model gives probabilities that are no numbers.

    Returns:
        The new ids of each prompt up to its stop token, which is included, and the probability of
        each of them where decoding is greedy, else [].
    """
    import torch

    steps = _Steps(len(prompts), max_new_tokens, advance)
    with torch.no_grad():
        if can_decode(model):
            rows, probabilities = _decode(
                model, prompts, max_new_tokens, options, steps, is_complete
            )
        else:
            rows, probabilities = _generate(model, prompts, max_new_tokens, options, steps)
    steps.finish()
    return rows, probabilities


def can_decode(model: Any) -> bool:
    """Whether all that a model keeps of the past are keys and values, so that rows can leave."""
    from transformers import DynamicCache, GenerationMixin
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    owner: Any = inner_model(model)
    base: Any = GenerationMixin
    if not issubclass(type(owner), base) or owner.config.is_encoder_decoder:
        return False
    # A model that prepares inputs in its own way needs more than ids, mask and positions.
    prepare = type(owner).prepare_inputs_for_generation
    if prepare is not base.prepare_inputs_for_generation:
        return False
    names = forward_arguments(type(owner))
    if not {"position_ids", "logits_to_keep"} <= names or not names & {"cache", "past_key_values"}:
        return False
    layers = DynamicCache(config=owner.config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def inner_model(model: Any) -> Any:
    """The model that adapters were added to, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@functools.cache
def forward_arguments(model_class: type) -> frozenset[str]:
    """Names of the arguments of a model's forward pass."""
    return frozenset(inspect.signature(model_class.forward).parameters)


def cache_argument(model_class: type) -> str:
    """What a model calls its cache: it was renamed in transformers 5."""
    return "cache" if "cache" in forward_arguments(model_class) else "past_key_values"


def positions_of(mask: Any) -> Any:
    """Position of each token [rows, tokens] of rows that are padded on the left, from 0."""
    return (mask.cumsum(1) - 1).clamp(min=0)


class _Steps:
    """Tells how many prompts are done while they are decoded together."""

    def __init__(self, rows: int, steps: int, advance: Callable[[float], None] | None) -> None:
        self.rows, self.steps, self.advance = rows, steps, advance
        self.done = 0
        self.reported = 0

    def step(self) -> None:
        """One token of each row is chosen; counts those before it, whose tokens are read."""
        self._report(self.rows * self.done // self.steps)
        self.done += 1

    def finish(self) -> None:
        """All rows are done, also where they ended before the last step."""
        self._report(self.rows)

    def _report(self, done: int) -> None:
        if self.advance and done > self.reported:
            self.advance(done - self.reported)
        self.reported = done


class _Batch:
    """The rows that are still written: their scores, keys and values, mask and positions."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], pad: int) -> None:
        """Read each distinct prompt once."""
        import torch
        from transformers import DynamicCache

        owner = inner_model(model)
        self.model = model
        self.cache = DynamicCache(config=owner.config)
        self.cache_name = cache_argument(type(owner))
        distinct = list(dict.fromkeys(map(tuple, prompts)))
        place_of = {prompt: place for place, prompt in enumerate(distinct)}
        ids, mask = _left_padded(distinct, pad, model.device)
        self.mask = mask
        self.positions = positions_of(mask)
        self._read(ids)
        places = [place_of[tuple(prompt)] for prompt in prompts]
        self.rows = list(range(len(prompts)))  # their places among all prompts
        if places != list(range(len(prompts))):
            self._select(torch.tensor(places, device=model.device))

    def append(self, tokens: Any) -> None:
        """Read the next token of each row. tokens: [rows]."""
        self.mask = _with_ones(self.mask)
        self.positions = self.positions[:, -1:] + 1
        self._read(tokens[:, None])

    def leave(self, ended: Any) -> None:
        """Go on without the rows that have ended. ended: [rows], bool."""
        staying = (~ended).nonzero().squeeze(1)
        self.rows = [self.rows[place] for place in staying.tolist()]
        self._select(staying)

    def _read(self, ids: Any) -> None:
        arguments = {self.cache_name: self.cache, "use_cache": True, "logits_to_keep": 1}
        outputs = self.model(
            input_ids=ids, attention_mask=self.mask, position_ids=self.positions, **arguments
        )
        self.scores = outputs.logits[:, -1].float()

    def _select(self, rows: Any) -> None:
        self.cache.batch_select_indices(rows)
        self.scores = self.scores[rows]
        self.mask = self.mask[rows]
        self.positions = self.positions[rows]


def _decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    options: Mapping[str, Any],
    steps: _Steps,
    is_complete: Callable[[Sequence[int]], bool] | None,
) -> tuple[Rows, list[list[float]]]:
    import torch

    batch = _Batch(model, prompts, options["pad_token_id"])
    stops = torch.tensor(options["eos_token_id"], device=model.device)
    written: Rows = [[] for _ in prompts]
    probabilities: list[list[float]] = [[] for _ in prompts]
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=model.device)
    for left in reversed(range(max_new_tokens)):
        steps.step()
        tokens, chances = _choose(batch.scores, options)
        new = zip(batch.rows, tokens.tolist(), chances.tolist(), ended.tolist(), strict=True)
        for row, token, chance, has_ended in new:
            if not has_ended:
                written[row].append(token)
                probabilities[row].append(chance)
        ended |= torch.isin(tokens, stops)
        if is_complete:
            complete = [is_complete(written[row]) for row in batch.rows]
            ended |= torch.tensor(complete, device=ended.device)
        number_ended = int(ended.sum())
        if number_ended == len(ended) or not left:
            break
        if number_ended >= LEAVING * len(ended):
            batch.leave(ended)
            tokens, ended = tokens[~ended], ended[~ended]
        batch.append(tokens)
    return written, [] if options["do_sample"] else probabilities


def _choose(scores: Any, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """(the next token, its probability), both [rows], from scores [rows, vocabulary]."""
    import torch

    if not options["do_sample"]:
        chances, tokens = scores.softmax(-1).max(-1)
        return tokens, chances
    chances = (scores / options["temperature"]).softmax(-1)
    # Where the running sum of the probabilities passes a random number. torch.multinomial draws a
    # random number for each token of the vocabulary instead of one.
    is_single = chances.device.type == "mps"  # which has no float64
    sums = (chances if is_single else chances.double()).cumsum(-1)
    if not torch.isfinite(sums[:, -1]).all():
        raise StageError(
            "the model gives probabilities that are no numbers (NaN), so no token can be sampled: "
            "its weights are broken, or its dtype is too narrow for it"
        )
    drawn = torch.rand_like(sums[:, :1]) * sums[:, -1:]
    tokens = torch.searchsorted(sums, drawn, right=True).clamp(max=scores.shape[1] - 1)
    return tokens.squeeze(1), chances.gather(1, tokens).squeeze(1)


def _left_padded(prompts: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[Any, Any]:
    """(ids, mask), both [prompts, tokens], of prompts that end in the same column."""
    import torch

    width = max(map(len, prompts))
    ids = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _with_ones(mask: Any) -> Any:
    import torch

    return torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)


class _Recorder:
    """A logits processor that changes nothing and looks at each step of ``generate()``.

    Of the scores of a step it keeps the largest probability of each row: greedy decoding chooses
    that token. The scores of all steps (batch x tokens x vocabulary) are never kept.
    """

    def __init__(self, steps: _Steps, greedy: bool) -> None:
        self.steps, self.greedy = steps, greedy
        self.probabilities: list[Any] = []  # of each step, one per row

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """What transformers calls before it chooses a token; returns the scores as they are."""
        if self.greedy:
            self.probabilities.append(scores.float().softmax(-1).max(-1).values)
        self.steps.step()
        return scores


def _generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    options: Mapping[str, Any],
    steps: _Steps,
) -> tuple[Rows, list[list[float]]]:
    """The same by ``generate()`` of transformers."""
    import torch
    from transformers import LogitsProcessorList

    ids, mask = _left_padded(prompts, options["pad_token_id"], model.device)
    recorder = _Recorder(steps, not options["do_sample"])
    with plain_settings(model):
        sequences = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            logits_processor=LogitsProcessorList([recorder]),
            **options,
        )
    rows = sequences[:, ids.shape[1] :].tolist()
    ends = [chat_format.reply_length(row, options["eos_token_id"]) for row in rows]
    rows = [row[:end] for row, end in zip(rows, ends, strict=True)]
    if not recorder.probabilities:
        return rows, []
    of_rows = torch.stack(recorder.probabilities, 1).tolist()
    return rows, [chances[:end] for chances, end in zip(of_rows, ends, strict=True)]


@contextmanager
def plain_settings(model: Any) -> Iterator[None]:
    """Generate without what a model's generation_config.json sets, other than by options.

    Many published models bring a penalty on repetitions or cut the distribution (min_p). Under
    these the probabilities of training are not those of use, and two models are not comparable.
    """
    from transformers import GenerationConfig

    # An adapter passes on what it is asked for, but not what is set.
    owner = inner_model(model)
    own = getattr(owner, "generation_config", None)
    owner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        owner.generation_config = own
