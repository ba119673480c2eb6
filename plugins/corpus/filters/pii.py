"""Personal data by pattern: addresses, phone numbers, accounts and cards become placeholders.

Source: FineWeb replaces e-mail and public IPv4 addresses (Penedo et al. 2024, section 3.5); it
draws them from a list with a counter that runs over documents, so its output depends on the
shard, while these placeholders are constant. The rest is added, by strict patterns and checksums
(pii_patterns.py): dates, prices, years and version numbers must survive. Names need a model: see
pii_names.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Callable, Iterator, Sequence

from llmstages.core.errors import StageError
from llmstages.core.stage import option
from llmstages.data.filtering import Check, Document, Edit, Verdict
from llmstages.plugins.corpus.filters import pii_patterns

Spans = Callable[[str], Iterator[tuple[int, int]]]


class PII:
    """Replaces personal data; the number of replacements is counted."""

    @dc.dataclass(frozen=True)
    class Config:
        email: str = option("[email]", "placeholder of an e-mail address; empty leaves them")
        iban: str = option(
            "[iban]",
            "placeholder of a bank account number (IBAN with a right checksum); empty leaves them",
        )
        card: str = option(
            "[card]",
            "placeholder of a payment card number (with a right checksum); empty leaves them",
        )
        ipv6: str = option("[ip]", "placeholder of a public IPv6 address; empty leaves them")
        ip: str = option("[ip]", "placeholder of a public IPv4 address; empty leaves them")
        phone: str = option("[phone]", "placeholder of a phone number; empty leaves them")
        phone_regions: tuple[str, ...] = option(
            (),
            "ISO country codes (DE, US): find numbers also as people write them there, with the"
            " package phonenumbers (100 times slower); empty: international and North American form"
            " alone",
        )

    kind = "edit"
    version = "3"

    def __init__(self, config: Config) -> None:
        # In this order, since a card number may contain what looks like a phone number.
        kinds: dict[str, Spans] = dict(pii_patterns.KINDS)
        if config.phone and config.phone_regions:
            kinds["phone"] = _phones(config.phone_regions)
        self._kinds = [
            (name, find, getattr(config, name))
            for name, find in kinds.items()
            if getattr(config, name)  # the placeholder; "" leaves this kind in the text
        ]

    def judge(self, documents: Sequence[Document]) -> Sequence[Verdict]:
        verdicts: list[Verdict] = []
        for document in documents:
            text, counts = self._replace(document.text)
            count = sum(counts.values())
            verdicts.append(Edit(text, count) if count else None)
        return verdicts

    def measure(self, documents: Sequence[Document]) -> list[list[Check]]:
        """How many of each kind."""
        measured = []
        for document in documents:
            _, counts = self._replace(document.text)
            measured.append([Check(name, count) for name, count in counts.items()])
        return measured

    def _replace(self, text: str) -> tuple[str, dict[str, int]]:
        counts = dict.fromkeys((name for name, _, _ in self._kinds), 0)
        possible = pii_patterns.possible(text)
        for name, find, placeholder in self._kinds:
            if name not in possible:
                continue
            parts: list[str] = []
            end = 0
            for start, stop in find(text):
                # Of spans that overlap, the first counts.
                if start >= end:
                    parts += [text[end:start], placeholder]
                    end = stop
                    counts[name] += 1
            if parts:
                text = "".join([*parts, text[end:]])
        return text, counts


def _phones(regions: Sequence[str]) -> Spans:
    """Phone numbers as the package phonenumbers finds them, in each region."""
    try:
        import phonenumbers  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError as error:
        raise StageError(
            "pii.phone_regions needs the package phonenumbers. Run: pip install "
            "'llmstages[phone]', or leave phone_regions empty"
        ) from error
    unknown = sorted(set(regions) - set(phonenumbers.SUPPORTED_REGIONS))
    if unknown:
        raise StageError(
            f"pii.phone_regions: {', '.join(unknown)} is not a region that phonenumbers knows; "
            "give ISO codes of countries, such as DE or US"
        )

    def find(text: str) -> Iterator[tuple[int, int]]:
        spans = {*pii_patterns.phones(text)}
        for region in regions:
            for match in phonenumbers.PhoneNumberMatcher(text, region):
                spans.add((match.start, match.end))
        yield from sorted(spans, key=lambda span: (span[0], -span[1]))

    return find
