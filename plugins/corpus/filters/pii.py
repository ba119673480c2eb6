"""Personal data by pattern: e-mail addresses, public IPv4 addresses and phone numbers become placeholders.

Source: FineWeb replaces e-mail and public IPv4 addresses (Penedo et al. 2024, section 3.5); it draws them from a list
with a counter that runs over documents, so its output depends on the shard, while these placeholders are constant.
Phone numbers are added, by strict patterns (international form, or North American grouping): dates, prices and years
must survive. Names, street addresses, IPv6 and account numbers are left out; they need a model or checksums.
"""

from __future__ import annotations

import dataclasses as dc
import ipaddress
import re
from collections.abc import Sequence

from llmstages.plugins.corpus.filter import Document, Edit, Verdict
from llmstages.stage import option

EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![\w-])")
IPV4 = re.compile(r"(?<![\d.])(?<!version )(?<!Version )(?<!\bv)(?:\d{1,3}\.){3}\d{1,3}(?![\d]|\.\d)")
PHONE = re.compile(
    r"(?<![\w+.-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){1,4}"   # +49 30 1234567
    r"|(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4})(?![\w-]|\.\d)")                          # (555) 123-4567


class PII:
    """Replaces personal data; the number of replacements is counted."""

    @dc.dataclass(frozen=True)
    class Config:
        email: str = option("[email]", "placeholder of an e-mail address; empty leaves them")
        ip: str = option("[ip]", "placeholder of a public IPv4 address; empty leaves them")
        phone: str = option("[phone]", "placeholder of a phone number; empty leaves them")

    kind = "edit"
    version = "1"

    def __init__(self, config: Config) -> None:
        self.config = config

    def apply(self, documents: Sequence[Document]) -> Sequence[Verdict]:
        return [self._edit(document.text) for document in documents]

    def _edit(self, text: str) -> Verdict:
        c, total = self.config, 0
        if c.email and "@" in text:
            text, count = EMAIL.subn(lambda _: c.email, text)
            total += count
        if not any(map(str.isdigit, text)):
            return Edit(text, total) if total else None
        if c.ip:
            text, count = _replace(IPV4, text, c.ip, _is_public)
            total += count
        if c.phone:
            text, count = _replace(PHONE, text, c.phone, lambda found: 8 <= sum(map(str.isdigit, found)) <= 15)
            total += count
        return Edit(text, total) if total else None


def _replace(pattern: re.Pattern[str], text: str, placeholder: str, accept) -> tuple[str, int]:
    count = 0

    def one(match: re.Match[str]) -> str:
        nonlocal count
        if not accept(match.group()):
            return match.group()
        count += 1
        return placeholder

    return pattern.sub(one, text), count


def _is_public(found: str) -> bool:
    try:
        return ipaddress.IPv4Address(found).is_global
    except ValueError:  # 999.1.1.1 is no address
        return False
