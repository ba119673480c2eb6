"""tool search_http: a search service that answers JSON, whatever its form.

The address, the parameter of the query and the places of text, title and address in the answer are
options, so SearXNG, Elasticsearch, a retrieval server of one's own or a hosted service need no
code. The query is all that a model decides: it is percent-encoded or a JSON string, redirects are
not followed, and an answer is read up to a limit. Whatever fails is the text ``error: ...``, which
the model reads as the result.

Unlike an index, a service may answer differently tomorrow: what it answered is not part of a
fingerprint.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from llmstages.core.errors import StageError
from llmstages.core.secrets import NAME
from llmstages.core.stage import option
from llmstages.data.endpoint import (
    EXCERPT,
    LONGEST_WAIT,
    REPEATABLE,
    check_address,
    check_key_variable,
    read_key,
    retry_after,
    without_key,
)
from llmstages.data.passages import Passage
from llmstages.plugins.tools import results

QUERY = "{query}"  # in an address: where the query is put
LONGEST_QUERY = 2000  # characters; services refuse longer ones with messages of their own
SECRET_HEADERS = {"authorization", "cookie", "proxy-authorization"}
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@dataclass(frozen=True)
class SearchHTTPConfig:
    endpoint: str = option(
        help="address of the service; `{query}` in its path or its parameters is replaced by the "
        "query: http://localhost:8080/search?format=json&q={query}"
    )
    method: str = option(
        "GET", "GET: parameters in the address; POST: a JSON object", choices=("GET", "POST")
    )
    parameter: str = option("q", "parameter that takes the query; unused with `{query}`")
    parameters: dict[str, Any] = option(
        help="further parameters of each request, such as {format: json}", factory=dict
    )
    results_path: str = option(
        "results",
        "where the list of results is in the answer, with dots: hits.hits; empty: it is the answer",
    )
    text_field: str = option("content", "where the text is in a result, with dots: _source.text")
    title_field: str = option("title", "where the title is in a result; empty: there is none")
    url_field: str = option("url", "where the address is in a result; empty: there is none")
    results: int = option(3, "results put into the context, at most", ge=1)
    max_characters: int = option(1000, "characters of them at most", ge=1)
    titles: bool = option(True, "write a line `[1] title address` before each result")
    key_variable: str = option(
        "",
        "NAME of the environment variable with the key of the service; empty, or unset: no key",
        identity=False,
    )
    key_header: str = option("Authorization", "header in which the key is sent")
    key_prefix: str = option("Bearer ", "what stands before the key in its header")
    headers: dict[str, str] = option(
        help="further headers without secrets, such as {Accept-Language: de}", factory=dict
    )
    timeout: float = option(
        10.0, "seconds until a request, its answer included, counts as failed", gt=0, identity=False
    )
    retries: int = option(
        2, "times a failed request (429, 5xx, no connection) is repeated", ge=0, identity=False
    )
    wait: float = option(
        0.5,
        "seconds before the first repetition, doubled before each further one",
        ge=0,
        identity=False,
    )
    max_bytes: int = option(2_000_000, "bytes of an answer that are read at most", ge=1)

    def __post_init__(self) -> None:
        check_address(self.endpoint)
        if QUERY in urlsplit(self.endpoint).netloc:
            raise ValueError("endpoint must not take its host from the query")
        if self.key_variable:
            check_key_variable(self.key_variable)
        for name in (*self.headers, self.key_header):
            if not HEADER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a header")
        for name in self.headers:
            if name.lower() in SECRET_HEADERS or NAME.search(name.replace("-", "_")):
                raise ValueError(
                    f"headers.{name} would end in records; put the key into the environment "
                    "variable of key_variable, and name its header in key_header"
                )
        for name in self.parameters:
            if NAME.search(name):
                raise ValueError(f"parameters.{name} would end in records; use key_variable")


class Failure(Exception):
    """What the model reads after ``error: ``."""


class SearchHTTP:
    """Searches with a service and gives the best results.

    Attributes:
        sources: as those of the tool search, with what the service says: ``url`` and ``title``.
    """

    Config = SearchHTTPConfig
    version = "1"
    marks = ("<SEARCH_START>", "<SEARCH_END>")

    def __init__(self, config: SearchHTTPConfig) -> None:
        self.config = config
        self.sources: list[dict[str, object]] = []

    def open(self, folder: Path) -> None:
        """There is nothing to get ready."""

    def __call__(self, argument: str) -> str:
        config = self.config
        self.sources = []
        query = " ".join(argument.split())[:LONGEST_QUERY]
        # A query of dots alone would be taken for a folder of the address.
        if not query.strip(". "):
            return results.NOTHING
        try:
            found = list(self._passages(self._answer(query)))[: config.results]
        except (Failure, StageError) as error:
            return f"error: {error}"
        found = results.fitting(found, config.max_characters)
        self.sources = results.sources(found)
        return results.shown(found, query, config.max_characters, config.titles)

    def _answer(self, query: str) -> Any:
        """The answer of the service. Raises Failure."""
        import httpx

        problem = ""
        for attempt in range(1 + self.config.retries):
            wait = self.config.wait * 2**attempt
            try:
                status, body, after = self._request(query)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                problem = self._clean(f"{type(error).__name__}: {error}")
            else:
                if status == 200:
                    return self._parse(body)
                text = body.decode("utf-8", "replace")
                problem = f"HTTP {status}: {self._clean(text)[:EXCERPT]}".rstrip(": ")
                if status not in REPEATABLE and status < 500:
                    break
                wait = max(wait, after)
            if attempt < self.config.retries:
                time.sleep(min(wait, LONGEST_WAIT))
        raise Failure(f"the search service failed: {problem}")

    def _request(self, query: str) -> tuple[int, bytes, float]:
        """(status, body, seconds to wait where the server asks for that) of one request."""
        import httpx

        config = self.config
        headers = {"Accept": "application/json", **config.headers}
        key = read_key(config.key_variable, "search_http") if config.key_variable else ""
        if key:
            headers[config.key_header] = config.key_prefix + key
        parameters = dict(config.parameters)
        if QUERY not in config.endpoint:
            parameters[config.parameter] = query
        url = config.endpoint.replace(QUERY, quote(query, safe=""))
        deadline = time.monotonic() + config.timeout
        content: dict[str, Any] = {}
        if config.method == "POST":
            content["json"] = parameters
        elif parameters:
            content["params"] = httpx.URL(url).params.merge(parameters)
        with (
            httpx.Client(timeout=config.timeout) as client,
            client.stream(config.method, url, headers=headers, **content) as response,
        ):
            body = bytearray()
            for part in response.iter_bytes():
                body += part
                if len(body) > config.max_bytes:
                    raise Failure(f"the answer has more than {config.max_bytes} bytes")
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout(f"no whole answer in {config.timeout:g} seconds")
            after = retry_after(response.headers.get("retry-after"))
            return response.status_code, bytes(body), after

    def _parse(self, body: bytes) -> list[Any]:
        """The list of results in an answer."""
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError) as error:
            excerpt = self._clean(body.decode("utf-8", "replace"))[:EXCERPT]
            raise Failure(f"the answer is not JSON: {excerpt}") from error
        found = at(answer, self.config.results_path)
        if isinstance(found, list):
            return found
        keys = ", ".join(map(str, answer)) if isinstance(answer, dict) else type(answer).__name__
        raise Failure(
            f"the answer has no list at {self.config.results_path!r}; it has: "
            f"{self._clean(keys)[:EXCERPT]}"
        )

    def _passages(self, found: list[Any]) -> Iterator[Passage]:
        """The results that have a text."""
        config = self.config
        for number, result in enumerate(found):
            fields = result if isinstance(result, Mapping) else {config.text_field: result}
            text, title, url = (
                self._text(fields, path)
                for path in (config.text_field, config.title_field, config.url_field)
            )
            if text:
                yield Passage(f"{url or 'result'}:{number}", text, 0, url, title)

    def _text(self, fields: Mapping[str, Any], path: str) -> str:
        """A field as text; lists of texts, such as highlights, are joined."""
        value = at(fields, path) if path else ""
        if isinstance(value, list):
            value = " ".join(item for item in value if isinstance(item, str))
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)
        return self._clean(value) if isinstance(value, str) else ""

    def _clean(self, text: str) -> str:
        return without_key(text, self.config.key_variable)


def at(value: Any, path: str) -> Any:
    """What stands at a path of keys and numbers, ``hits.0.text``; None where there is nothing.

    A key that itself holds the dots is found first.
    """
    if not path:
        return value
    if isinstance(value, Mapping) and path in value:
        return value[path]
    first, _, rest = path.partition(".")
    if isinstance(value, Mapping):
        return at(value.get(first), rest)
    if isinstance(value, list) and first.isdigit() and int(first) < len(value):
        return at(value[int(first)], rest)
    return None
