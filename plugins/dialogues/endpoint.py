"""A model behind an OpenAI-compatible address (vLLM, llama.cpp, hosted services): many requests at once, repeated while it pays.

httpx and not huggingface_hub's InferenceClient, which sends the user's Hugging Face token to any address where no other key is given.
The key is read from the environment when it is used; it is taken out of every text that comes back.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.secrets import mask
from llmstages.data.readers.record import clean
from llmstages.plugins.dialogues.answers import FAILED, Said

AGAIN = (408, 409, 425, 429)  # and 5xx: asked once more
HOPELESS = (
    401,
    402,
    404,
    405,
)  # and redirects: no request of this run can do better. 403 is not one: moderation says it too
LONGEST_WAIT = 60.0  # seconds, also where the server asks for more
SHOWN = 200
UNFINISHED = {
    "length": ("cut", "the answer was cut off at max_new_tokens"),
    "content_filter": ("refused", "stopped by the service's content filter"),
}


@dataclass
class Endpoint:
    """``name`` answers at ``url``. settings: the fields of a request besides model and messages."""

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

    def ask(self, requests: Sequence[str], missing: Sequence[int]) -> Iterator[tuple[int, Said]]:
        """Answers as they come; StageError where no answer can be expected any more."""
        try:
            import httpx
        except ImportError as error:
            raise StageError(
                f"{self.step}: httpx, which asks {self.url}, is not installed: pip install httpx"
            ) from error
        key = self._key()
        if not (key.isascii() and key.isprintable()):  # the library's own message would show it
            raise StageError(
                f"{self.step}: the environment variable {self.key_variable} holds what can be no key: line breaks or letters beyond ASCII"
            )
        client = httpx.Client(
            timeout=self.timeout, headers={"Authorization": f"Bearer {key}"} if key else {}
        )
        pool = ThreadPoolExecutor(self.concurrency)
        self._stop.clear()
        try:
            asked = {pool.submit(self._one, client, requests[i]): i for i in missing}
            failed, answered = 0, len(missing) < len(requests)
            for future in as_completed(asked):
                said = future.result()
                answered = answered or said.rule not in FAILED
                # a service that answers others refuses these for what they hold: the next may do
                failed = (
                    failed + 1
                    if said.rule == "failed" or (said.rule == "refused" and not answered)
                    else 0
                )
                if failed >= self.patience:
                    raise StageError(
                        f"{self.step}: {self.url} failed {failed} requests in a row, each repeated where that may help; the last: {said.reason}. "
                        "What was answered is kept: run again when it is up, or correct the address, the model or the key"
                    )
                yield asked[future], said
        finally:  # also on Ctrl-C: nothing that waits is sent any more
            self._stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            client.close()

    def _one(self, client: Any, request: str) -> Said:
        import httpx

        body = {
            "model": self.name,
            "messages": [{"role": "user", "content": request}],
            **self.settings,
        }
        problem = ""
        for attempt in range(1 + self.retries):
            if self._stop.is_set():
                break
            wait = self.wait * 2**attempt
            try:
                response = client.post(
                    _completions(self.url),
                    json={name: value for name, value in body.items() if value is not None},
                )
            except httpx.RequestError as error:  # no connection, no answer in time, connection lost
                problem = self._told(f"{type(error).__name__}: {error}")
            else:
                status = response.status_code
                if status == 200:
                    return self._read(response)
                problem = f"HTTP {status}: {self._told(response.text)[:SHOWN]}"
                if status in HOPELESS or status < 400:
                    raise StageError(self._hopeless(status, problem))
                if status not in AGAIN and status < 500:
                    return Said(rule="refused", reason=problem)
                wait = max(wait, _seconds(response.headers.get("retry-after")))
            if attempt < self.retries:
                self._stop.wait(min(wait, LONGEST_WAIT))
        return Said(rule="failed", reason=problem)

    def _read(self, response: Any) -> Said:
        try:
            value = response.json()
            choice, used = value["choices"][0], value.get("usage") or {}
            text = choice["message"].get("content") or ""
            tokens = {
                name: int(used.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")
            }
            if not isinstance(text, str):
                raise TypeError(f"content is a {type(text).__name__}")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            return Said(
                rule="failed",
                reason=f"no chat completion ({type(error).__name__}): {self._told(response.text)[:SHOWN]}",
            )
        return Said(
            self._told(text), *UNFINISHED.get(str(choice.get("finish_reason")), ("", "")), **tokens
        )

    def _hopeless(self, status: int, problem: str) -> str:
        cure = {
            401: f"put a valid key into the environment variable {self.key_variable}",
            402: "the account has no credit",
            404: f"is the address right, and does it serve {self.name!r}?",
        }
        return f"{self.step}: {self.url} answers {problem}. To do: {cure.get(status, 'correct the address')}. What was answered is kept"

    def _key(self) -> str:
        return os.environ.get(self.key_variable, "").strip()

    def _told(self, text: str) -> str:
        """What a server said, as it may be kept: without the key, which it may echo (and whose variable need not be named like a
        secret's, so mask() alone would not do). Before any cut, which might leave half a key."""
        return clean(str(mask(text.replace(self._key(), "***") if self._key() else text))).strip()


def _completions(url: str) -> str:
    """The address of chat completions; a query (``?api-version=...``) stays behind it."""
    base, mark, query = url.partition("?")
    base = base.rstrip("/")
    return (
        (base if base.endswith("/chat/completions") else f"{base}/chat/completions") + mark + query
    )


def _seconds(value: str | None) -> float:
    try:
        return max(0.0, float(value or 0))
    except ValueError:  # a date; the own wait must do
        return 0.0
