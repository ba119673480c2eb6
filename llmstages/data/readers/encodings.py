"""Charset labels as browsers read them (WHATWG Encoding), and text files that begin with a mark.

A label of the web means more than Python's codec of that name: gb2312 is read as GB18030, shift_jis
as cp932, ISO-8859-9 as windows-1254. What is no encoding of the web (UTF-7, IBM's code pages) is
none here, and a <meta> element that is read at all cannot be UTF-16.
"""

from __future__ import annotations

import codecs
import io
from pathlib import Path
from typing import Any

from llmstages.data.readers.streams import BUFFER, Meter, open_file

# Python's name of a declared codec -> the codec that browsers use.
SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "johab": "cp949",
    "big5": "big5hkscs",
    "cp950": "big5hkscs",
}
# Labels that Python does not know.
LABELS = {
    "x-sjis": "cp932",
    "ms_kanji": "cp932",
    "windows-31j": "cp932",
    "csshiftjis": "cp932",
    "x-gbk": "gb18030",
    "gb_2312-80": "gb18030",
    "chinese": "gb18030",
    "csgb2312": "gb18030",
    "x-euc-jp": "euc_jp",
    "cseucpkdfmtjapanese": "euc_jp",
    "korean": "cp949",
    "ks_c_5601-1987": "cp949",
    "ks_c_5601-1989": "cp949",
    "ksc5601": "cp949",
    "windows-949": "cp949",
    "x-windows-949": "cp949",
    "cn-big5": "big5hkscs",
    "x-x-big5": "big5hkscs",
    "dos-874": "cp874",
    "x-cp1250": "cp1250",
    "x-cp1251": "cp1251",
    "x-cp1252": "cp1252",
    "x-cp1254": "cp1254",
    "iso-8859-8-i": "iso8859-8",
    "logical": "iso8859-8",
    "x-mac-cyrillic": "mac-cyrillic",
    "x-mac-roman": "mac-roman",
    "unicode-1-1-utf-8": "utf-8",
    "x-unicode20utf8": "utf-8",
}
WEB = frozenset(
    (
        "utf-8",
        "ibm866",
        "cp866",
        *(f"iso8859-{number}" for number in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
        "koi8-r",
        "koi8-u",
        "mac-roman",
        "mac-cyrillic",
        "cp874",
        *(f"cp125{number}" for number in range(9)),
        "gb18030",
        "big5hkscs",
        "euc_jp",
        "iso2022_jp",
        "cp932",
        "cp949",
        "utf-16",
        "utf-16-le",
        "utf-16-be",
    )
)
START_BYTES = 4096
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def web_codec(label: str, in_page: bool = False) -> str:
    """Python's codec for a charset label, "" for one that is unknown or not of the web.

    Args:
        label: as a server or a page declares it.
        in_page: declared by a <meta> element, where UTF-16 means UTF-8.
    """
    label = label.strip().strip("\"'").lower()
    codec = LABELS.get(label, "")
    if not codec:
        try:
            codec = codecs.lookup(label).name if label else ""
        except (LookupError, ValueError):
            return ""
    codec = SUPERSETS.get(codec, codec)
    if in_page and codec.startswith("utf-16"):
        return "utf-8"
    return codec if codec in WEB else ""


def open_utf8(path: Path, meter: Meter | None = None) -> io.BufferedReader:
    """The text of a file in UTF-8, decompressed; UTF-16 and UTF-32 are known by their mark.

    A text whose lines end with CR alone and that is not UTF-8 is read as Mac Roman.
    """
    start = _start(path)
    stored = open_file(path, meter)
    for mark, encoding in MARKS:
        if start.startswith(mark):
            return _transcoded(stored, encoding)
    return _transcoded(stored, "mac-roman") if _is_of_old_mac(start) else stored


def _transcoded(stored: io.BufferedReader, encoding: str) -> io.BufferedReader:
    stream: Any = _Transcoded(stored, encoding)
    return io.BufferedReader(stream, BUFFER)


def _is_of_old_mac(start: bytes) -> bool:
    """Whether lines end as on the first Macs, with CR alone, and the text is not UTF-8."""
    if b"\n" in start or b"\r" not in start:
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return True
    return False


def _start(path: Path) -> bytes:
    """The first bytes of a text; b"" if they are damaged, which whoever reads the file will find.

    In a stream of its own: looking ahead in the one that is read would lose the report of damage.
    """
    try:
        with open_file(path) as stream:
            return stream.read(START_BYTES)
    except (OSError, EOFError):
        return b""


class _Transcoded(io.RawIOBase):
    """A stream of text in another encoding, as UTF-8."""

    def __init__(self, stored: io.BufferedReader, encoding: str) -> None:
        self._stored = stored
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        while not self._waiting:
            block = self._stored.read(BUFFER)
            text = self._decoder.decode(block, final=not block)
            self._waiting = text.encode("utf-8", "surrogatepass")
            if not block:
                break
        count = min(len(buffer), len(self._waiting))
        buffer[:count] = self._waiting[:count]
        self._waiting = self._waiting[count:]
        return count

    def close(self) -> None:
        self._stored.close()
        super().close()
