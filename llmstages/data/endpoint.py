"""A model behind an OpenAI-compatible address (vLLM, llama.cpp, hosted services).

Many requests run at once, and failed ones are repeated where that may help. httpx asks, and not
huggingface_hub's InferenceClient, which sends the user's Hugging Face token to any address if no
other key is given. The key is read from the environment when it is used, and it is taken out of
every text that comes back.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from llmstages.core.errors import StageError
from llmstages.core.secrets import NAME, mask
from llmstages.core.stage import option
from llmstages.data.readers.record import clean

FAILED = ("failed", "refused")  # rules of answers that are not saved, but asked for again
REPEATABLE = (408, 409, 425, 429)  # and all 5xx: the request is sent again
# These, and redirects: no request of this run can succeed. 403 is not among them, since moderation
# answers it too.
HOPELESS = (401, 402, 404, 405)
LONGEST_WAIT = 60.0  # seconds, also where the server asks for more
EXCERPT = 200  # characters of a server's text that a message quotes
UNFINISHED = {
    "length": ("cut", "the answer was cut off at max_new_tokens"),
    "content_filter": ("refused", "stopped by the service's content filter"),
}


@dataclass(frozen=True)
class Answer:
    """What came back for one request.

    Attributes:
        text: the answer.
        rule: why it cannot be used, as a word; "" if it can.
        reason: the same as a sentence.
        prompt_tokens, completion_tokens: 0 where the answerer does not count them.
    """

    text: str = ""
    rule: str = ""
    reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass
class Endpoint:
    """The model ``name`` of a service.

    Attributes:
        step: the name of the step, for messages.
        url: the address, such as ``http://localhost:8000/v1``.
        name: the model as the service calls it.
        settings: the fields of a request besides model and messages; None leaves one out.
        key_variable: the name of the environment variable with the key.
        concurrency: requests at once.
        timeout: seconds until a request counts as failed.
        retries: times a failed request is repeated.
        wait: seconds before the first repetition, doubled before each further one.
        patience: failed requests in a row after which the service is given up.
        saved: what a message says about the answers that came before the service failed.
    """

    step: str
    url: str
    name: str
    settings: dict[str, Any]
    key_variable: str
    concurrency: int
    timeout: float
    retries: int
    wait: float
    patience: int
    _stop: threading.Event = field(default_factory=threading.Event)
    saved: str = "The answers so far are saved"

    def ask(self, requests: Sequence[str], missing: Sequence[int]) -> Iterator[tuple[int, Answer]]:
        """Yield the answers as they come.

        Raises:
            StageError: no answer can be expected any more.
        """
        client = self._client()
        pool = ThreadPoolExecutor(self.concurrency)
        self._stop.clear()
        try:
            numbers = {pool.submit(self._one, client, requests[i]): i for i in missing}
            failed_in_a_row = 0
            has_answered = len(missing) < len(requests)
            for future in as_completed(numbers):
                answer = future.result()
                has_answered = has_answered or answer.rule not in FAILED
                # A service that answers other requests refuses these for their content, which says
                # nothing about the next one.
                refused_all = answer.rule == "refused" and not has_answered
                if answer.rule == "failed" or refused_all:
                    failed_in_a_row += 1
                else:
                    failed_in_a_row = 0
                if failed_in_a_row >= self.patience:
                    raise StageError(
                        f"{self.step}: {self.url} failed {failed_in_a_row} requests in a row, each "
                        f"repeated where that may help; the last: {answer.reason}. {self.saved}: "
                        "run again when the service is up, or correct the address, the model or "
                        "the key"
                    )
                yield numbers[future], answer
        finally:  # also on Ctrl-C: no request that waits is sent any more
            self._stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            client.close()

    def _client(self) -> Any:
        try:
            import httpx
        except ImportError as error:
            raise StageError(
                f"{self.step}: httpx, which asks {self.url}, is not installed: pip install httpx"
            ) from error
        key = read_key(self.key_variable, self.step)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(timeout=self.timeout, headers=headers)

    def _one(self, client: Any, request: str) -> Answer:
        """Send one request, repeatedly if needed."""
        import httpx

        body = {
            "model": self.name,
            "messages": [{"role": "user", "content": request}],
            **self.settings,
        }
        body = {name: value for name, value in body.items() if value is not None}
        problem = ""
        for attempt in range(1 + self.retries):
            if self._stop.is_set():
                break
            wait = self.wait * 2**attempt
            try:
                response = client.post(_completions(self.url), json=body)
            except httpx.RequestError as error:  # no connection, timeout, connection lost
                problem = self._without_key(f"{type(error).__name__}: {error}")
            else:
                status = response.status_code
                if status == 200:
                    return self._parse(response)
                problem = f"HTTP {status}: {self._without_key(response.text)[:EXCERPT]}"
                if status in HOPELESS or status < 400:
                    raise StageError(self._hopeless(status, problem))
                if status not in REPEATABLE and status < 500:
                    return Answer(rule="refused", reason=problem)
                wait = max(wait, retry_after(response.headers.get("retry-after")))
            if attempt < self.retries:
                self._stop.wait(min(wait, LONGEST_WAIT))
        return Answer(rule="failed", reason=problem)

    def _parse(self, response: Any) -> Answer:
        """The answer in a chat completion."""
        try:
            value = response.json()
            choice = value["choices"][0]
            text = choice["message"].get("content") or ""
            usage = value.get("usage") or {}
            prompt_tokens = int(usage.get("prompt_tokens") or 0)
            completion_tokens = int(usage.get("completion_tokens") or 0)
            if not isinstance(text, str):
                raise TypeError(f"content is a {type(text).__name__}")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            excerpt = self._without_key(response.text)[:EXCERPT]
            reason = f"no chat completion ({type(error).__name__}): {excerpt}"
            return Answer(rule="failed", reason=reason)
        rule, reason = UNFINISHED.get(str(choice.get("finish_reason")), ("", ""))
        return Answer(self._without_key(text), rule, reason, prompt_tokens, completion_tokens)

    def _hopeless(self, status: int, problem: str) -> str:
        advice = {
            401: f"put a valid key into the environment variable {self.key_variable}",
            402: "the account has no credit",
            404: f"is the address right, and does it serve {self.name!r}?",
        }
        return (
            f"{self.step}: {self.url} answers {problem}. "
            f"To do: {advice.get(status, 'correct the address')}. {self.saved}"
        )

    def _without_key(self, text: str) -> str:
        return without_key(text, self.key_variable)


def read_key(variable: str, where: str) -> str:
    """The key in an environment variable, "" if it is unset.

    Raises:
        StageError: it cannot be sent. The message of httpx about such a key would show it.
    """
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise StageError(
            f"{where}: the environment variable {variable} does not hold a key: "
            "it has line breaks or letters beyond ASCII"
        )
    return key


def without_key(text: str, variable: str) -> str:
    """A text of a server without the key in an environment variable, which it may echo.

    mask() alone is not enough, since the variable need not be named like a secret. This must come
    before a text is shortened, or half a key might be left.
    """
    key = os.environ.get(variable, "").strip()
    if key:
        text = text.replace(key, "***")
    return clean(str(mask(text))).strip()


def _completions(url: str) -> str:
    """The address of chat completions; a query (``?api-version=...``) stays at its end."""
    base, mark, query = url.partition("?")
    base = base.rstrip("/")
    if not base.endswith("/chat/completions"):
        base += "/chat/completions"
    return base + mark + query


def retry_after(value: str | None) -> float:
    """The value of a Retry-After header; 0 for a date, where our own wait must do."""
    try:
        return max(0.0, float(value or 0))
    except ValueError:
        return 0.0


def check_key_variable(name: str) -> None:
    """Refuse what is not the name of an environment variable.

    A key in place of its name would end in records. For the same reason no message shows it.
    """
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise ValueError(
            "key_variable takes the NAME of an environment variable, in capitals "
            "(OPENAI_API_KEY), never a key itself"
        )


def check_address(endpoint: str) -> None:
    """Refuse what is not an address, or holds a secret; the messages do not quote it."""
    address = urlsplit(endpoint)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError("endpoint must be an address like http://localhost:8000/v1")
    parameters = parse_qs(address.query, keep_blank_values=True)
    if "@" in address.netloc or any(NAME.search(name) for name in parameters):
        raise ValueError(
            "endpoint holds a password or a key, which would end in records; put it into the "
            "environment variable of key_variable"
        )


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """Options of stages that may ask a model behind an address. None of them is its identity."""

    endpoint: str = option(
        "",
        "address of an OpenAI-compatible service, such as http://localhost:8000/v1",
        identity=False,
    )
    key_variable: str = option(
        "OPENAI_API_KEY",
        "NAME of the environment variable that holds the endpoint's key; if it is unset, no key is "
        "sent",
        identity=False,
    )
    concurrency: int = option(8, "requests at the endpoint at once", ge=1, identity=False)
    timeout: float = option(120.0, "seconds until a request counts as failed", gt=0, identity=False)
    retries: int = option(
        4,
        "times a failed request (429, 5xx, no connection, timeout) is repeated",
        ge=0,
        identity=False,
    )
    wait: float = option(
        1.0,
        "seconds before the first repetition, doubled before each further one",
        ge=0,
        identity=False,
    )
    patience: int = option(
        5, "failed requests in a row after which the endpoint is given up", ge=1, identity=False
    )

    def __post_init__(self) -> None:
        check_key_variable(self.key_variable)
        if self.endpoint:
            check_address(self.endpoint)

    def service(self, step: str, model: str, settings: dict[str, Any]) -> Endpoint:
        """What is asked.

        Args:
            step: the name of the step, for messages.
            model: as the service calls it.
            settings: the fields of a request besides model and messages.
        """
        return Endpoint(
            step,
            self.endpoint,
            model,
            settings,
            self.key_variable,
            self.concurrency,
            self.timeout,
            self.retries,
            self.wait,
            self.patience,
        )
