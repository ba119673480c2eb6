"""Where personal data stands in a text, in time that grows with its length alone.

Each finder looks for something rare that can be found fast (an ``@``, a ``+``, two colons near
each other), then reads a bounded number of characters around it. Patterns are bounded or
possessive (``++``: what matched is not tried in other ways), so no text makes them slow.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

Span = tuple[int, int]

LOCAL = re.compile(r"[\w.+%-]{1,65}")  # read backwards
DOMAIN = re.compile(r"@(?:[^\W_][\w-]{0,62}\.){1,8}[^\W\d_]{2,24}(?![\w-])")
PLUS = re.compile(  # +49 30 1234567, +1 (212) 555-0187, +33 1 42 68 53 00
    r"\+[1-9][0-9]{0,14}+(?:(?:[ .-]?\([0-9]{1,5}\)[ .-]?|[ ./-])[0-9]{1,14}+)?+(?:["
    r" ./-][0-9]{2,14}+){0,6}+(?:-[0-9])?+(?![\w]|[.-][0-9])"
)
LOCAL_PHONE = re.compile(
    r"[-.)] ?[0-9]{3}[-.][0-9]{4}(?![\w-]|\.[0-9])"
)  # the end of (212) 555-0187 and 212-555-0187
AREA = re.compile(r"(?<![\w+.-])(?:1[ .-])?(?:[0-9]{3}|\([0-9]{3}\))$")
DOTTED = re.compile(
    r"\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9][0-9.]*+"
)  # the end of 8.8.8.8, with all digits and dots that follow
VERSION = re.compile(r"(?:\b[Vv](?:er(?:sion)?)?\.?[ :]{0,2}|[\w+.-]|[<>=~!]=)$")
COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]*+")
HEX = re.compile(r"[0-9A-Fa-f]{1,4}$")
CARD = re.compile(
    r"[2-6](?<![\w.+-].)(?:[0-9]{12,18}+|[0-9]{3}(["
    r" -])(?:[0-9]{4}\1[0-9]{4}\1[0-9]{4}|[0-9]{6}\1[0-9]{4,5}))(?!\w|[.-][0-9])"
)
# (digits, first, last): the numbers that cards of that length begin with, by the ranges of the
# large networks (ISO/IEC 7812)
BRANDS = (
    (13, 4, 4),
    (16, 4, 4),
    (19, 4, 4),
    (16, 51, 55),
    (16, 2221, 2720),
    (15, 34, 34),
    (15, 37, 37),
    (16, 6011, 6011),
    (16, 644, 659),
    (16, 3528, 3589),
    (14, 300, 305),
    (14, 36, 36),
    (14, 38, 39),
    (16, 62, 62),
    (17, 62, 62),
    (18, 62, 62),
    (19, 62, 62),
)
IBAN = re.compile(r"[A-Z](?<!\w.)[A-Z][0-9]{2}[ -]?(?=[A-Z0-9]{4})[A-Z0-9 -]{10,40}")
COUNTRIES = {
    entry[:2]: int(entry[2:])
    for entry in (  # characters of an IBAN (ISO 13616 registry)
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28"
        " EE20 EG29 ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26"
        " IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30"
        " NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23"
        " TN24 TR26 UA29 VA22 VG24 XK20"
    ).split()
}
DIGIT = re.compile("[0-9]")


def possible(text: str) -> set[str]:
    """The kinds that the text may hold, by a glance at it."""
    kinds = {"email"} if "@" in text else set()
    if DIGIT.search(text):
        kinds |= {"iban", "card", "ip", "phone"} | ({"ipv6"} if ":" in text else set())
    return kinds


def emails(text: str) -> Iterator[Span]:
    """anna.b+news@mail.example.org"""
    for match in DOMAIN.finditer(text):
        at = match.start()
        before = LOCAL.match(text[max(0, at - 65) : at][::-1])
        local = before.group()[::-1].lstrip("._+%-") if before else ""
        if 0 < len(local) < 65:
            yield at - len(local), match.end()


def phones(text: str) -> Iterator[Span]:
    """International form (8 to 15 digits after a plus), or North American grouping."""
    spans = []
    for match in PLUS.finditer(text):
        start, end = match.span()
        while (
            sum(map(str.isdigit, text[start:end])) > 15
        ):  # ITU E.164: a number that follows is another number
            end = max(map(text.rfind, " ./-", [start] * 4, [end] * 4))
            if end < start:
                break
        alone = start == 0 or not (text[start - 1].isalnum() or text[start - 1] in "_+.-")
        if alone and sum(map(str.isdigit, text[start:end])) >= 8:
            spans.append((start, end))
    for match in LOCAL_PHONE.finditer(text):
        tail = match.group()
        middle = match.start() + (tail[0] == ")")
        area = AREA.search(text, max(0, middle - 8), middle)
        if area and (
            area.group().endswith(")") if tail[0] == ")" else tail[0] == tail[-5] and tail[1] != " "
        ):
            spans.append((area.start(), match.end()))
    yield from sorted(spans)


def ipv4(text: str) -> Iterator[Span]:
    """8.8.8.8, but no private address, and nothing that is called a version."""
    for match in DOTTED.finditer(text):
        start = match.start()
        first = re.search(r"[0-9]{1,3}$", text[max(0, start - 3) : start])
        found = (first.group() if first else "") + match.group().rstrip(".")
        begin = match.end() - len(match.group()) - (len(first.group()) if first else 0)
        end = begin + len(found)
        if (
            first
            and not VERSION.search(text[max(0, begin - 12) : begin])
            and not text[end : end + 1].isalnum()
            and _public(found)
        ):
            yield begin, end


def ipv6(text: str) -> Iterator[Span]:
    """2a00:1450:4001:82a::200e: global unicast addresses, which begin with 2 or 3."""
    for match in COLONS.finditer(text):
        if len(match.group()) > 45:
            continue
        first = HEX.search(text[max(0, match.start() - 4) : match.start()])
        begin = match.start() - (len(first.group()) if first else 0)
        end = match.end() - (len(match.group()) - len(match.group().rstrip(".")))
        if text[end - 1] == ":" and text[end - 2] != ":":
            end -= 1
        edge = text[begin - 1 : begin] + text[end : end + 1]
        if (
            first
            and text[begin] in "23"
            and not any(c.isalnum() or c in ":_" for c in edge)
            and _public(text[begin:end])
        ):
            yield begin, end


def _public(found: str) -> bool:
    try:
        return ipaddress.ip_address(found).is_global
    except ValueError:  # 999.1.1.1 is no address
        return False


def cards(text: str) -> Iterator[Span]:
    """4111 1111 1111 1111: of a known network, with a right checksum (Luhn).

    In groups as printed on cards, or without blanks.
    """
    for match in CARD.finditer(text):
        digits = match.group().replace(" ", "").replace("-", "")
        known = any(
            len(digits) == length and low <= int(digits[: len(str(low))]) <= high
            for length, low, high in BRANDS
        )
        if known and _luhn(digits):
            yield match.span()


def _luhn(digits: str) -> bool:
    doubled = [2 * int(d) - 9 * (d > "4") for d in digits[-2::-2]]
    return (sum(doubled) + sum(map(int, digits[-1::-2]))) % 10 == 0


def ibans(text: str) -> Iterator[Span]:
    """DE89 3704 0044 0532 0130 00: length of its country and checksum (ISO 7064, modulo 97)."""
    at = 0
    while match := IBAN.search(text, at):
        start = match.start()
        at = start + 4
        length, end, letters = COUNTRIES.get(match.group()[:2], 0), start, ""
        while len(letters) < length and end < match.end():
            letters += text[end].strip(" -")
            end += 1
        whole = len(letters) == length > 0 and not text[end : end + 1].isalnum()
        if whole and int("".join(str(int(c, 36)) for c in letters[4:] + letters[:4])) % 97 == 1:
            yield start, end
            at = end


KINDS = {"email": emails, "iban": ibans, "card": cards, "ipv6": ipv6, "ip": ipv4, "phone": phones}
