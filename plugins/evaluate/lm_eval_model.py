"""A model of the run as lm-evaluation-harness asks it: likelihoods, running text, replies.

A prompt is two parts: ids that stand (a BOS, or the rendered dialogue up to its last control token)
and the text behind them, which is encoded together with what is scored, as in training. The harness
passes prompts on as strings, so they are strings that know their parts. Control tokens come from
the chat template alone, never from the text of a task.

The counting is the harness's own (``HFLM``): blanks at the end of a prompt belong to what is
scored, a text that is too long loses its beginning, running text is scored in windows that do not
overlap. Unlike there, BOS stays where the beginning is cut, scores are in float32 for models in
bfloat16, and a reply ends at every token that ends replies here (generate.stop_ids).
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lm_eval.api.model import LM

from llmstages.core.stage import Context
from llmstages.plugins.evaluate import lm_eval_tasks
from llmstages.text import chat_format, encode, generate
from llmstages.text.messages import message
from llmstages.text.special_tokens import special_tokens_of
from llmstages.train.token_losses import rows_at_once

NO_LIMIT = 1 << 30  # tokens, for models that state no context length
TASK_TOKENS = 256  # the harness's limit of replies where a task has none
# Names of the limit in tasks, as the harness reads them, the first one first
LIMIT_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
KNOWN_SETTINGS = {"until", "do_sample", "temperature", *LIMIT_NAMES}


class Prompt(str):
    """The text of a rendered dialogue, and its parts.

    Attributes:
        head: ids up to the last control token.
        tail: the text behind it.
        prefilled: whether the assistant's answer has begun in it.
    """

    head: list[int]
    tail: str
    prefilled: bool


class Scored(NamedTuple):
    """Ids, and the position from which they are scored (1 or more)."""

    ids: list[int]
    first: int


def ask(
    model: Any,
    tokenizer: Any,
    tasks: Mapping[str, Any],
    name: str,
    config: Any,
    ctx: Context,
    *,
    chat: bool,
) -> Mapping[str, Any]:
    """Put all tasks to a model.

    Args:
        model, tokenizer: of transformers.
        tasks: what lm_eval_tasks.load() returned.
        name: of the model, for messages.
        config: LMEvalConfig.
        chat: whether prompts are rendered by the chat template.

    Returns:
        What ``lm_eval.evaluator.evaluate`` returns: ``results``, ``groups``, ``samples``, ...
    """
    from lm_eval.evaluator import evaluate
    from transformers import set_seed

    set_seed(config.seed)
    random.seed(0)
    lm_eval_tasks.reset_fewshot(tasks, config.seed)
    asked = AskedModel(model, tokenizer, name, config, ctx)
    with lm_eval_tasks.quiet():
        results: Any = evaluate(
            asked,
            dict(tasks),
            limit=config.limit or None,
            bootstrap_iters=0,
            system_instruction=config.system_prompt or None,
            apply_chat_template=chat,
            fewshot_as_multiturn=True,
        )
    for note, number in (+asked.notes).items():  # without those that never happened
        ctx.say(f"{ctx.step}: {name}: {number} {note}")
    return results


class AskedModel(LM):
    """One model; the methods are those that the harness calls.

    Attributes:
        notes: what was cut or not followed, and how often.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, config: Any, ctx: Context) -> None:
        super().__init__()
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._name, self._config, self._ctx = name, config, ctx
        self._stderr = sys.stderr  # the harness's own output is hidden, ours is not
        context = getattr(model.config, "max_position_embeddings", NO_LIMIT)
        self._limit = min(context, config.max_length or context)
        self.notes: Counter[str] = Counter()

    @property
    def tokenizer_name(self) -> str:
        """A key for the harness's cache of requests, which is not used."""
        return self._name

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
    ) -> Prompt:
        """The prompt of a dialogue; without add_generation_prompt its last turn is an answer that
        has begun."""
        history = [message(turn["role"], turn["content"]) for turn in chat_history]
        begun = "" if add_generation_prompt else str(history.pop()["content"])
        ids = chat_format.prompt_ids(self._tokenizer, [history])[0]
        head, tail = self._split(ids)
        text = self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        prompt = Prompt(text + begun)
        prompt.head, prompt.tail = head, tail + self._lead() + begun
        prompt.prefilled = bool(begun)
        return prompt

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """(log-probability, whether it is what greedy decoding writes) of each continuation."""
        pairs = [self._pair(*request.args[:2]) for request in requests]
        scored = [self._fit(pair) for pair in pairs]
        return self._score("likelihoods", scored)

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """The log-probability of each text, from its first token on."""
        texts = [request.args[0] for request in requests]
        windows: list[Scored] = []
        owners: list[int] = []
        for number, ids in enumerate(chat_format.encode_texts(self._tokenizer, texts)):
            parts = rolling_windows(self._prefix(), ids, self._limit)
            windows += parts
            owners += [number] * len(parts)
        sums = [0.0] * len(texts)
        for owner, (nats, _) in zip(owners, self._score("texts", windows), strict=True):
            sums[owner] += nats
        return sums

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """What the model writes after each prompt, up to a stop string or the end of its turn."""
        replies = [""] * len(requests)
        alike: dict[str, list[int]] = {}  # places of requests with the same settings
        for place, request in enumerate(requests):
            alike.setdefault(repr(request.args[1]), []).append(place)
        with self._progress("replies", len(requests)) as advance:
            for places in alike.values():
                contexts = [requests[place].args[0] for place in places]
                settings = copy.deepcopy(requests[places[0]].args[1])
                texts = self._generate(contexts, settings, advance)
                for place, text in zip(places, texts, strict=True):
                    replies[place] = text
        return replies

    def _generate(
        self, contexts: Sequence[str], settings: Mapping[str, Any], advance: Callable[[float], None]
    ) -> list[str]:
        until = settings.get("until") or []
        stops = [stop for stop in ([until] if isinstance(until, str) else until) if stop]
        for name in settings:
            if name not in KNOWN_SETTINGS:
                self.notes[f"prompts of tasks that set {name}, which is not used"] += len(contexts)
        length = self._reply_length(settings, len(contexts))
        prompts = []
        for context in contexts:
            head, text = self._parts(context)
            ids = [*head, *self._encode(text.removesuffix(self._open_lead(context)))]
            self.notes["prompts too long, their middle left out"] += len(ids) > self._limit - length
            prompts.append(generate.fit_prompt(ids or [self._prefix()], self._limit, length))
        sampled = settings.get("do_sample", "temperature" in settings)
        written, _ = generate.generate(
            self._model,
            self._tokenizer,
            prompts,
            max_new_tokens=length,
            temperature=float(settings.get("temperature", 1.0)) if sampled else 0.0,
            batch=self._config.batch,
            advance=advance,
            is_complete=ends_with_any(self._tokenizer, stops) if stops else None,
        )
        texts = []
        for context, ids in zip(contexts, written, strict=True):
            text = self._tokenizer.decode(ids, skip_special_tokens=True)
            texts.append(cut_at(text.removeprefix(self._open_lead(context)), stops))
        return texts

    def _reply_length(self, settings: Mapping[str, Any], number: int) -> int:
        """Longest reply in tokens; half of the context is left for the prompt."""
        limits = [settings[name] for name in LIMIT_NAMES if settings.get(name) is not None]
        wanted = self._config.max_new_tokens or int(limits[0] if limits else TASK_TOKENS)
        length = max(1, min(wanted, self._limit // 2))
        if length < wanted:
            self.notes[
                f"prompts whose replies have {length} tokens at most, half of the context, "
                f"not {wanted}"
            ] += number
        return length

    def _pair(self, context: str, continuation: str) -> Scored:
        """A prompt and its continuation, encoded as one."""
        head, text = self._parts(context)
        kept = text.rstrip()
        whole = [*head, *self._encode(text + continuation)]
        first = len(head) + len(self._encode(kept))
        if not first:
            whole, first = [self._prefix(), *whole], 1
        return Scored(whole, max(1, min(first, len(whole) - 1)))

    def _fit(self, pair: Scored) -> Scored:
        """A pair whose beginning is left out where it is too long; a BOS stays."""
        # The last token is predicted, not read.
        cut = len(pair.ids) - 1 - self._limit
        if cut <= 0:
            return pair
        self.notes["prompts too long, their beginning left out"] += 1
        begin = chat_format.begin_ids(self._tokenizer)
        begin = begin if pair.ids[:1] == begin else []
        ids = [*begin, *pair.ids[cut + len(begin) :]]
        return Scored(ids, max(1, pair.first - cut))

    def _parts(self, context: str) -> tuple[list[int], str]:
        """(ids that stand, text behind them) of a prompt."""
        if isinstance(context, Prompt):
            return context.head, context.tail
        text = chat_format.spaced(self._tokenizer, [context])[0]
        return chat_format.begin_ids(self._tokenizer), text

    def _split(self, ids: list[int]) -> tuple[list[int], str]:
        """(ids up to the last control token, text of the others) of a rendered prompt."""
        special = {id for id, _, _ in special_tokens_of(self._tokenizer).ids.values()}
        places = [place for place, id in enumerate(ids) if id in special]
        begin = places[-1] + 1 if places else 0
        text = self._tokenizer.decode(ids[begin:], clean_up_tokenization_spaces=False)
        # Tokenizers that write blanks in another way do not give the ids back.
        if self._encode(text) != ids[begin:]:
            return ids, ""
        return ids[:begin], text

    def _encode(self, text: str) -> list[int]:
        return encode.encode(self._tokenizer, [text])[0] if text else []

    def _lead(self) -> str:
        """The blank that the chat template writes before each answer, if any."""
        lead = chat_format.control_tokens(self._tokenizer).lead
        return "" if lead.strip() else lead

    def _open_lead(self, context: str) -> str:
        """The blank at the end of a prompt that the model itself writes when it answers."""
        is_open = isinstance(context, Prompt) and not context.prefilled
        return self._lead() if is_open else ""

    def _prefix(self) -> int:
        """What stands before a text that has nothing before it."""
        bos = self._tokenizer.bos_token_id
        return self._tokenizer.eos_token_id if bos is None else bos

    def _score(self, what: str, sequences: Sequence[Scored]) -> list[tuple[float, bool]]:
        scores: list[tuple[float, bool]] = [(0.0, True)] * len(sequences)
        order = sorted(range(len(sequences)), key=lambda place: len(sequences[place].ids))
        with self._progress(what, len(sequences)) as advance:
            start = 0
            while start < len(order):
                places = order[start : start + self._config.batch]
                rows = [sequences[place] for place in places]
                places = places[: rows_at_once(self._model, rows)]
                pad = chat_format.padding_id(self._tokenizer)
                measured = score_batch(self._model, pad, rows[: len(places)])
                for place, score in zip(places, measured, strict=True):
                    scores[place] = score
                start += len(places)
                advance(len(places))
        return scores

    @contextlib.contextmanager
    def _progress(self, what: str, total: int) -> Any:
        description = f"{self._ctx.step} {self._name} {what}"
        shown = self._ctx.progress(description, total)
        with contextlib.redirect_stderr(self._stderr), shown as advance:
            yield advance


def rolling_windows(prefix: int, ids: Sequence[int], limit: int) -> list[Scored]:
    """A text in windows of which the model reads ``limit`` tokens; each token is scored once.

    The last window reaches back as far as the limit allows.
    """
    windows = []
    for start in range(0, len(ids), limit):
        stop = min(start + limit, len(ids))
        # One token before those that are read first: it is what the window begins with.
        begin = stop - limit - 1
        if start == 0:
            windows.append(Scored([prefix, *ids[:stop]], 1))
        else:
            windows.append(Scored(list(ids[begin:stop]), start - begin))
    return windows


def score_batch(model: Any, pad: int, rows: Sequence[Scored]) -> list[tuple[float, bool]]:
    """(log-probability, whether greedy) of what is scored in each row, in one forward pass."""
    import torch

    width = max(len(row.ids) for row in rows) - 1
    padded = [[*row.ids[:-1], *[pad] * (width + 1 - len(row.ids))] for row in rows]
    attended = [[1] * (len(row.ids) - 1) + [0] * (width + 1 - len(row.ids)) for row in rows]
    ids = torch.tensor(padded, device=model.device)
    mask = torch.tensor(attended, device=model.device)
    begin = min(row.first for row in rows) - 1
    options = {}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = width - begin
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **options).logits
    logits = logits[:, begin - width :]
    scores = []
    # One row at a time, so that float32 copies never exist for all of them.
    for row, row_logits in zip(rows, logits, strict=True):
        target = torch.tensor(row.ids[row.first :], device=model.device)
        chances = (
            row_logits[row.first - 1 - begin : len(row.ids) - 1 - begin].float().log_softmax(-1)
        )
        nats = chances.gather(-1, target[:, None]).squeeze(-1).sum()
        scores.append((float(nats), bool((chances.argmax(-1) == target).all())))
    return scores


def ends_with_any(tokenizer: Any, stops: Sequence[str]) -> Callable[[Sequence[int]], bool]:
    """Whether the text of ids has one of the stop strings in its last tokens."""
    # A token has a byte at least, and the last one may hold the end of the stop and more.
    span = max(len(stop.encode()) for stop in stops) + 1

    def is_complete(ids: Sequence[int]) -> bool:
        text = tokenizer.decode(list(ids[-span:]), skip_special_tokens=True)
        return any(stop in text for stop in stops)

    return is_complete


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stop strings."""
    for stop in stops:
        text = text.split(stop)[0]
    return text
