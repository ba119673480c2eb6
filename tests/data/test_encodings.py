"""Encodings of pages and tables, and what lies in a folder beside the data."""

from __future__ import annotations

import codecs
import gzip
import json
from collections import Counter

import pytest

from llmstages.core.digest import Digests
from llmstages.core.errors import StageError
from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.data.readers import find, rows
from llmstages.data.readers.encodings import web_codec
from llmstages.data.readers.examples import (
    REPLACED,
    WINDOWS,
    convert_dialogues,
    decoded_values,
    from_files,
    write,
)
from llmstages.plugins.corpus.extraction import decode


@pytest.mark.parametrize(
    "label, text",
    [
        ("gb2312", "\u9555\u5586"),  # in GB18030 alone
        ("GBK", "\u20ac"),
        ("shift_jis", "\u9ad9\u2460"),
        ("x-sjis", "\u2460"),
        ("Windows-31J", "\u2461"),
        ("iso-8859-1", "\u201cso\u201d \u20ac"),
        ("us-ascii", "\u2019"),
        ("iso-8859-9", "\u201c\u015f\u201d"),
        ("tis-620", "\u201c\u0e01\u201d"),
        ("euc-kr", "\ub618\ubc29\uac01\ud558"),
        ("ks_c_5601-1987", "\ud55c\uae00"),
        ("big5", "\u55e7\u5605"),
        ("koi8-u", "\u0457"),
        ("iso-8859-8-i", "\u05d0"),
    ],
)
def test_labels_mean_what_browsers_read(label, text):
    encoding = web_codec(label)
    body = f"<html><meta charset={label}>{text}</html>".encode(encoding)
    assert text in decode(body)
    assert text in decode(body, label)


@pytest.mark.parametrize(
    "label", ["utf-7", "hex", "rot13", "idna", "cp037", "utf-32", "x", "", "../x", "unicode_escape"]
)
def test_what_is_no_encoding_of_the_web_is_none(label):
    assert web_codec(label) == ""


def test_a_meta_element_cannot_be_utf_16():
    assert web_codec("utf-16", in_page=True) == "utf-8"
    assert web_codec("utf-16le") == "utf-16-le"


ROWS = [{"question": "Wo?", "answer": "In der M\u00fcllergasse."}, {"question": "?", "answer": "x"}]


def as_csv(delimiter: str) -> str:
    lines = [delimiter.join(('"question"', "answer"))]
    lines += [delimiter.join((f'"{row["question"]}"', row["answer"])) for row in ROWS]
    return "\r\n".join(lines) + "\r\n"


def as_lines() -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_tables_of_spreadsheets(delimiter, encoding, tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(as_csv(delimiter).encode(encoding))
    assert read(file)[0] == ROWS


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE])
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".jsonl.gz"])
def test_json_in_other_encodings(mark, ending, tmp_path):
    encoding = {2: "utf-16", 4: "utf-32"}[len(mark)]
    order = "be" if mark == codecs.BOM_UTF16_BE else "le"
    text = json.dumps(ROWS, ensure_ascii=False) if ending == ".json" else as_lines()
    body = mark + text.encode(f"{encoding}-{order}")
    file = tmp_path / f"a{ending}"
    file.write_bytes(gzip.compress(body) if ending.endswith(".gz") else body)
    assert [row for _, row in rows(file)] == ROWS


def read(file):
    counts: Counter[str] = Counter()
    return [decoded_values(row, counts) for _, row in rows(file)], counts


@pytest.mark.parametrize(
    "text, expected, kind",
    [
        (b"M\xfcller", "M\u00fcller", WINDOWS),
        (b"\x93so\x94 \x80 5", "\u201cso\u201d \u20ac 5", WINDOWS),
        # Damage in valid UTF-8, and text in another alphabet, cannot be read so.
        ("na\u00efve ".encode() + b"\xe9", None, REPLACED),
        ("\u041c\u043e\u0441\u043a\u0432\u0430".encode("cp1251"), None, REPLACED),
    ],
)
def test_stray_bytes_are_read_or_replaced_and_counted(text, expected, kind, tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(b"question,answer\nWho?," + text + b"\n")
    made, counts = read(file)
    assert counts[kind] > 0
    assert sum(counts.values()) == counts[kind]
    said: list[str] = []
    ctx = Context("dialogues", tmp_path, tmp_path, {}, say=said.append)
    metrics = write(convert_dialogues(from_files([file]), "detect", ctx), ctx, "x")
    (row,) = tables.load(tmp_path / "data")
    answer = row["messages"][-1]["content"]
    assert f"{counts[kind]} {kind}" in said
    assert metrics["replaced"] == (0 if expected else answer.count("\ufffd"))
    assert answer == expected or "\ufffd" in answer
    assert made


HIDDEN = (
    ".ipynb_checkpoints/a-checkpoint.jsonl",
    "._a.jsonl",
    ".~lock.a.jsonl",
    "__MACOSX/a.jsonl",
    "deep/.cache/a.jsonl",
)


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_files_are_no_data_and_change_no_fingerprint(name, tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "a.jsonl").write_text(as_lines())
    before = Digests().field("x", str(folder))
    hidden = folder / name
    hidden.parent.mkdir(parents=True, exist_ok=True)
    hidden.write_text(as_lines())
    assert find(str(folder), "dialogues") == [folder / "a.jsonl"]
    assert Digests().field("x", str(folder)) == before


def test_a_folder_below_a_hidden_one_may_be_named(tmp_path):
    folder = tmp_path / ".hidden"
    folder.mkdir()
    (folder / "a.jsonl").write_text(as_lines())
    assert find(str(folder), "dialogues") == [folder / "a.jsonl"]


def test_a_saved_data_set_is_named_as_one(tmp_path):
    tables.save([{"a": 1}], tmp_path / "saved")
    with pytest.raises(StageError, match=r"save_to_disk\(\).*load_from_disk.*llmstages export"):
        find(str(tmp_path / "saved"), "dialogues")


@pytest.mark.parametrize("name", ["crawl [v2].jsonl", "a*b.jsonl", "what?.jsonl", "d=1.jsonl"])
def test_a_file_that_exists_is_read_whatever_its_name_is(name, tmp_path):
    file = tmp_path / name
    file.write_text(as_lines())
    assert find(str(file), "dialogues") == [file]
    assert len(Digests().field("x", str(file))) == 1


def test_content_that_was_exchanged_under_the_same_size_and_date_is_noticed(tmp_path):
    import os

    file = tmp_path / "a.jsonl"
    file.write_text("aaaa")
    before = file.stat()
    digests = Digests()
    first = digests.file(file)
    file.write_text("bbbb")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert digests.file(file) != first


def test_a_damaged_first_member_costs_its_own_rows_alone(tmp_path):
    members = [gzip.compress(f'{{"row": {number}}}\n'.encode()) for number in range(3)]
    broken = bytearray(members[0])
    broken[12] ^= 0xFF
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(bytes(broken) + members[1] + members[2])
    found = [row for _, row in rows(file)]
    assert [row for row in found if isinstance(row, dict)] == [{"row": 1}, {"row": 2}]
    assert any(getattr(row, "rule", "") == "damaged" for row in found)
