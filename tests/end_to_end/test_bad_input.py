"""What goes wrong outside the code ends in one message each.

Mistakes, missing and damaged files, broken packages, a full disk.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.chain import Done, command, digests, llmstages
from tests.end_to_end.web import page, write_warc, write_web


def refused(done: Done, code: int) -> str:
    """The one message of a command that failed."""
    output = done.out + done.err
    assert done.code == code, done.err
    assert "Traceback" not in output
    messages = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1, output
    return messages[0]


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["recipe=smoke", "steps.sft.model=corpus"],
            "'sft' (sft.chat) takes model as 'model', but 'corpus' gives corpus. "
            "Steps before it that fit: pretrain",
        ),
        (["recipe=smoke", "sft.learning_rte=1"], "Did you mean 'learning_rate'"),
        (["recipe=smoke", "sft.epochs=abc"], "sft.epochs: 'abc' is not a number"),
        (["recipe=smoke", "rl=grop"], "Did you mean 'grpo'"),
        (
            ["recipe=real", "only=pages", "pages.path=nope.warc.gz"],
            "pages.path: no file 'nope.warc.gz'",
        ),
        (["recipe=real"], "pages needs a value for pages.path"),
        (["recipe=real", "pages.path=/dev/null"], "problems needs a value for problems.path"),
    ],
)
def test_a_mistake_is_refused_before_any_work(tmp_path, words, message):
    assert message in refused(llmstages("run", *words, folder=tmp_path, code=None), 2)
    assert not (tmp_path / "store").exists()


def test_debug_shows_the_traceback_as_well(tmp_path):
    done = llmstages(
        "run", "recipe=smoke", "sft.epochs=abc", folder=tmp_path, code=2, LLMSTAGES_DEBUG="1"
    )
    assert "Traceback" in done.err and "error: sft.epochs" in done.err


def read_pages(folder: Path, warc: Path, code: int | None = 0) -> Done:
    return llmstages(
        "run", "--json", "recipe=real", "only=pages", f"pages.path={warc}", folder=folder, code=code
    )


def dropped(folder: Path) -> list[dict[str, str]]:
    from llmstages.data import tables

    return tables.load(folder / "runs/real/pages/dropped").to_list()


def test_of_a_warc_that_was_cut_off_the_good_records_are_kept_and_the_bad_one_is_named(tmp_path):
    whole = write_web(tmp_path / "whole.warc.gz", 20).read_bytes()
    # The sizes of records differ from run to run, and a cut between two records is not damage: so
    # the cut is made a little after the beginning of a record.
    start = whole.rfind(b"\x1f\x8b\x08", 0, int(len(whole) * 0.6))
    (tmp_path / "cut.warc.gz").write_bytes(whole[: start + 100])
    metrics = read_pages(tmp_path, tmp_path / "cut.warc.gz").json["steps"]["pages"]["metrics"]
    assert 10 <= metrics["documents"] <= 13
    assert metrics["damaged"] == 1
    [row] = dropped(tmp_path)
    assert row["rule"] == "damaged"
    assert row["id"].startswith("cut.warc.gz")
    assert row["value"]


def test_damage_in_the_middle_of_a_warc_costs_the_record_it_hit(tmp_path):
    rng = random.Random(0)
    parts = []
    for number in range(5):
        warc = write_warc(tmp_path / "one.gz", [page(rng, f"Part {number}")])
        parts.append(warc.read_bytes())
    parts[2] = parts[2][:100] + rng.randbytes(60) + parts[2][160:]
    (tmp_path / "hit.warc.gz").write_bytes(b"".join(parts))
    done = read_pages(tmp_path, tmp_path / "hit.warc.gz")
    assert done.json["steps"]["pages"]["metrics"]["documents"] == 4
    assert {row["rule"] for row in dropped(tmp_path)} == {"damaged"}


@pytest.mark.parametrize(
    "content",
    [random.Random(0).randbytes(5000), b"", b"\x1f\x8b\x08" + b"x" * 500, b"not a crawl\n" * 50],
)
def test_a_file_that_is_not_a_warc_is_refused_with_what_was_found(tmp_path, content):
    (tmp_path / "garbage.warc.gz").write_bytes(content)
    message = refused(read_pages(tmp_path, tmp_path / "garbage.warc.gz", code=None), 1)
    assert "holds no usable document" in message
    assert "damaged" in message
    assert "garbage.warc.gz" in message


BROKEN = {
    "fails": "raise RuntimeError('its library is missing')",
    "poor": "class Stage:\n    '''Poor.'''\n    version = '1'\n",
}


@pytest.mark.parametrize(
    "kind, message",
    [
        ("fails", "RuntimeError: its library is missing"),
        ("poor", "lacks Config, inputs, output, run"),
    ],
)
def test_a_broken_plugin_package_is_named_and_harms_no_other_run(tmp_path, kind, message):
    info = tmp_path / "site/frail-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: frail\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[llmstages.stages]\nrl.frail = frail:Stage\n")
    (tmp_path / "site/frail.py").write_text(BROKEN[kind])

    def with_package(*words: str, code: int | None = 0) -> Done:
        return llmstages(*words, folder=tmp_path, code=code, PYTHONPATH=str(tmp_path / "site"))

    error = refused(with_package("run", "recipe=smoke", "rl=frail", code=None), 2)
    assert message in error
    assert "frail" in error.replace("rl.frail", "")
    assert with_package("plan", "recipe=smoke").code == 0
    assert "BROKEN" in with_package("list", "rl").out


def can_mount() -> bool:
    """Whether a file system of our own can be mounted in a namespace of our own."""
    mount = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(mount, capture_output=True).returncode == 0


SMALL_DISK = """
mount -t tmpfs -o size=200m tmpfs disk && cd disk
run="$PYTHON -m llmstages run recipe=smoke"
test $BEFORE = none || $run only=$BEFORE > ../before 2>&1
mount -o remount,size=$(($(du -sk . | cut -f1) + 24))k .
$run only=$STEP > ../full 2>&1; echo $? > ../code
ls -A store/.tmp > ../left
$PYTHON -m llmstages verify recipe=smoke > ../verified
mount -o remount,size=200m . && $run only=$STEP > ../again 2>&1 && cp -r store ..
"""


@pytest.mark.skipif(not can_mount(), reason="needs unshare and a tmpfs of its own")
@pytest.mark.parametrize(
    "step, before",
    [("pages", "none"), pytest.param("pretrain", "tokenizer", marks=pytest.mark.slow)],
)
def test_a_full_disk_is_one_message_and_the_next_run_finishes(smoke, tmp_path, step, before):
    (tmp_path / "disk").mkdir()
    command(
        ["unshare", "-rm", "sh", "-uc", SMALL_DISK],
        tmp_path,
        PYTHON=sys.executable,
        STEP=step,
        BEFORE=before,
    )
    output = (tmp_path / "full").read_text()
    assert (tmp_path / "code").read_text() == "1\n"
    assert "Traceback" not in output
    assert output.count("error: ") == 1
    assert "is full" in output
    assert "finished steps are kept" in output
    assert (tmp_path / "left").read_text() == ""
    assert "0 damaged" in (tmp_path / "verified").read_text()
    finished = digests(tmp_path)
    assert finished.items() <= digests(smoke.folder).items()
    assert any(key.startswith(step) for key in finished)
