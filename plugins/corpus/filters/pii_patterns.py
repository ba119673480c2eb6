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
# +49 30 1234567, +1 (212) 555-0187, +33 1 42 68 53 00
PLUS = re.compile(
    # (?=(group))\1 never gives back what it took, like (group)++, which Python 3.11.2 gets wrong.
    r"\+[1-9][0-9]{0,14}+(?=((?:(?:[ .-]?\([0-9]{1,5}\)[ .-]?|[ ./-])[0-9]{1,14}+)?))\1"
    r"(?=((?:[ ./-][0-9]{2,14}+){0,6}))\2(?=((?:-[0-9])?))\3(?![\w]|[.-][0-9])"
)
# The end of (212) 555-0187 and 212-555-0187
LOCAL_PHONE = re.compile(r"[-.)] ?[0-9]{3}[-.][0-9]{4}(?![\w-]|\.[0-9])")
AREA = re.compile(r"(?<![\w+.-])(?:1[ .-])?(?:[0-9]{3}|\([0-9]{3}\))$")
# The end of 8.8.8.8, with all digits and dots that follow
DOTTED = re.compile(r"\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9][0-9.]*+")
LAST_DIGITS = re.compile(r"[0-9]{1,3}$")
VERSION = re.compile(r"(?:\b[Vv](?:er(?:sion)?)?\.?[ :]{0,2}|[\w+.-]|[<>=~!]=)$")
COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]*+")
HEX = re.compile(r"[0-9A-Fa-f]{1,4}$")
CARD = re.compile(
    r"[2-6](?<![\w.+-].)(?:[0-9]{12,18}+|[0-9]{3}([ -])"
    r"(?:[0-9]{4}\1[0-9]{4}\1[0-9]{4}|[0-9]{6}\1[0-9]{4,5}))(?!\w|[.-][0-9])"
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
# Country -> characters of an IBAN (ISO 13616 registry)
IBAN_LENGTHS = {
    entry[:2]: int(entry[2:])
    for entry in (
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
    kinds = set()
    if "@" in text:
        kinds.add("email")
    if DIGIT.search(text):
        kinds |= {"iban", "card", "ip", "phone"}
        if ":" in text:
            kinds.add("ipv6")
    return kinds


def emails(text: str) -> Iterator[Span]:
    """anna.b+news@mail.example.org"""
    for match in DOMAIN.finditer(text):
        at = match.start()
        # Reversed, since an expression cannot be matched backwards.
        before = LOCAL.match(text[max(0, at - 65) : at][::-1])
        local = before.group()[::-1].lstrip("._+%-") if before else ""
        if 0 < len(local) < 65:
            yield at - len(local), match.end()


def phones(text: str) -> Iterator[Span]:
    """International form (8 to 15 digits after a plus), or North American grouping."""
    spans = []
    for match in PLUS.finditer(text):
        start, end = match.span()
        # A number has at most 15 digits (ITU E.164); what follows is another number.
        while _count_digits(text[start:end]) > 15:
            end = max(text.rfind(separator, start, end) for separator in " ./-")
            if end < start:  # nothing separates the digits, so they are not a phone number
                end = start
        before = text[start - 1 : start] if start else ""
        alone = not before.isalnum() and before not in {"_", "+", ".", "-"}
        if alone and _count_digits(text[start:end]) >= 8:
            spans.append((start, end))
    for match in LOCAL_PHONE.finditer(text):
        start = _start_of_local_phone(text, match)
        if start >= 0:
            spans.append((start, match.end()))
    yield from sorted(spans)


def _count_digits(text: str) -> int:
    return sum(map(str.isdigit, text))


def _start_of_local_phone(text: str, match: re.Match[str]) -> int:
    """Where the area code before a match of LOCAL_PHONE starts, or -1."""
    tail = match.group()
    closes_bracket = tail[0] == ")"
    area_end = match.start() + closes_bracket
    area = AREA.search(text, max(0, area_end - 8), area_end)
    if area is None:
        return -1
    if closes_bracket:
        fits = area.group().endswith(")")
    else:
        # Both separators must be the same, as in 212-555-0187.
        fits = tail[0] == tail[-5] and tail[1] != " "
    return area.start() if fits else -1


def ipv4(text: str) -> Iterator[Span]:
    """8.8.8.8, but no private address, and nothing that is called a version."""
    for match in DOTTED.finditer(text):
        first = LAST_DIGITS.search(text[max(0, match.start() - 3) : match.start()])
        if first is None:
            continue
        begin = match.start() - len(first.group())
        address = first.group() + match.group().rstrip(".")
        end = begin + len(address)
        is_version = VERSION.search(text[max(0, begin - 12) : begin])
        if not is_version and not text[end : end + 1].isalnum() and _is_public(address):
            yield begin, end


def ipv6(text: str) -> Iterator[Span]:
    """2a00:1450:4001:82a::200e: global unicast addresses, which begin with 2 or 3."""
    for match in COLONS.finditer(text):
        if len(match.group()) > 45:  # characters of the longest address
            continue
        first = HEX.search(text[max(0, match.start() - 4) : match.start()])
        if first is None or first.group()[0] not in "23":
            continue
        begin = match.start() - len(first.group())
        end = match.start() + len(match.group().rstrip("."))
        # A colon behind the address is not part of it; two of them are.
        if text[end - 1] == ":" and text[end - 2] != ":":
            end -= 1
        neighbors = text[begin - 1 : begin] + text[end : end + 1]
        alone = not any(c.isalnum() or c in ":_" for c in neighbors)
        if alone and _is_public(text[begin:end]):
            yield begin, end


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:  # 999.1.1.1 is not an address
        return False


def cards(text: str) -> Iterator[Span]:
    """4111 1111 1111 1111: of a known network, with a right checksum (Luhn).

    In groups as printed on cards, or without blanks.
    """
    for match in CARD.finditer(text):
        digits = match.group().replace(" ", "").replace("-", "")
        if _is_of_known_network(digits) and _luhn(digits):
            yield match.span()


def _is_of_known_network(digits: str) -> bool:
    for length, low, high in BRANDS:
        if len(digits) == length and low <= int(digits[: len(str(low))]) <= high:
            return True
    return False


def _luhn(digits: str) -> bool:
    doubled = [2 * int(d) - 9 * (d > "4") for d in digits[-2::-2]]
    return (sum(doubled) + sum(map(int, digits[-1::-2]))) % 10 == 0


def ibans(text: str) -> Iterator[Span]:
    """DE89 3704 0044 0532 0130 00: length of its country and checksum (ISO 7064, modulo 97)."""
    match = IBAN.search(text)
    while match:
        start = end = match.start()
        length = IBAN_LENGTHS.get(match.group()[:2], 0)
        characters = ""
        while len(characters) < length and end < match.end():
            characters += text[end].strip(" -")
            end += 1
        whole = len(characters) == length > 0 and not text[end : end + 1].isalnum()
        if whole and _has_iban_checksum(characters):
            yield start, end
        else:
            end = start + 4  # another one may start inside this match
        match = IBAN.search(text, end)


def _has_iban_checksum(characters: str) -> bool:
    # Letters count as two digits: A is 10, Z is 35.
    digits = "".join(str(int(c, 36)) for c in characters[4:] + characters[:4])
    return int(digits) % 97 == 1


KINDS = {"email": emails, "iban": ibans, "card": cards, "ipv6": ipv6, "ip": ipv4, "phone": phones}
