"""Running: inline and in other processes, failures as one message, interruptions, JSON output."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from llmstages import run, step
from llmstages.core.errors import StageError
from llmstages.launch.config import Launch


@pytest.mark.parametrize("launch", ["inline", "single"])
def test_a_run_then_everything_reused(toys, cli, launch):
    words = ("run", "--json", "recipe=toy", f"launch={launch}")
    first = cli(*words)
    assert first.code == 0
    assert first.out.count("\n") == 1, "standard output is the JSON alone"
    steps = first.json["steps"]
    assert list(steps) == ["toypages", "toycorpus", "toymodel", "tuned", "toyreport"]
    assert {result["state"] for result in steps.values()} == {"new"}
    assert steps["toymodel"]["why"] == "never run"
    assert steps["toycorpus"]["metrics"]["kept"] == 3
    assert [claim["met"] for claim in first.json["claims"]] == [True, False]
    assert (toys / first.json["report"]).is_file()
    start = time.perf_counter()
    again = cli(*words)
    assert time.perf_counter() - start < 3
    assert {result["state"] for result in again.json["steps"].values()} == {"reused"}
    assert again.json["claims"] == first.json["claims"]


def test_inline_and_single_make_the_same_bytes(toys, cli):
    digests = []
    for launch in ("inline", "single"):
        cli("run", "recipe=toy", f"launch={launch}", f"store={launch}")
        records = [
            json.loads(path.read_text()) for path in sorted((toys / launch).glob("*/record.json"))
        ]
        keys = ("step", "fingerprint", "digest")
        digests.append([tuple(record[key] for key in keys) for record in records])
    assert digests[0] == digests[1]


@pytest.mark.parametrize("launch", ["inline", "single"])
@pytest.mark.parametrize(
    "failure, message",
    [
        ("stage", "told to fail. Unset TOY"),
        ("bug", "step 'toymodel' failed: KeyError: 'toy'. LLMSTAGES_DEBUG=1"),
    ],
)
def test_a_failing_step_stops_the_run_with_one_message(toys, cli, launch, failure, message):
    done = cli("run", "--json", "recipe=toy", f"launch={launch}", TOY=failure)
    assert done.code == 1
    assert message in done.json["error"]
    assert message in done.err.strip().splitlines()[-1]
    states = {name: result["state"] for name, result in done.json["steps"].items()}
    assert states == {"toypages": "new", "toycorpus": "new", "toymodel": "failed"}
    assert cli("run", "recipe=toy").code == 0


def test_debug_shows_the_traceback(toys):
    done = subprocess.run(
        [sys.executable, "-m", "llmstages", "run", "recipe=toy"],
        capture_output=True,
        text=True,
        env={**os.environ, "TOY": "bug", "LLMSTAGES_DEBUG": "1"},
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "in fail" in done.stderr


@pytest.mark.parametrize("launch", ["inline", "single"])
@pytest.mark.parametrize(
    "number, code", [(signal.SIGTERM, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130)]
)
def test_a_signal_stops_with_a_clear_line(toys, launch, number, code):
    process = subprocess.Popen(
        [sys.executable, "-m", "llmstages", "run", "recipe=toy", f"launch={launch}"],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TOY": "hang"},
    )
    while "toymodel runs" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(0.6)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert "stopped in step 'toymodel'; finished steps are kept" in out
    assert "Traceback" not in out + err


def test_a_stage_that_saves_on_a_signal_exits_75_and_resumes(toys, cli):
    assert cli("run", "recipe=toy", TOY="exit").code == 75
    assert cli("run", "recipe=toy", "launch=single", TOY="exit").code == 75


def test_work_left_by_an_interruption_is_resumed_from(toys, cli):
    path = cli("plan", "--json", "recipe=toy").json["steps"]["toymodel"]["path"]
    temporary = toys / path.replace("store/", "store/.tmp/")
    (temporary / "work" / "checkpoints" / "update-00000001").mkdir(parents=True)
    (temporary / "out").mkdir()
    (temporary / "out" / "leftover").write_text("of a killed attempt")
    done = cli("run", "--json", "recipe=toy")
    assert done.json["steps"]["toymodel"]["state"] == "resumed"
    assert not (toys / path / "leftover").exists()
    assert not temporary.exists()


def test_torchrun_is_asked_for_training_steps_alone_and_counted(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    launch = Launch(backend="torchrun", processes=2, cpu=True)
    assert "--nproc_per_node=2" in launch.command(tmp_path, trains=True)
    assert "torch.distributed.run" not in launch.command(tmp_path, trains=False)
    environment = launch.environment(trains=True)
    assert environment["ACCELERATE_USE_CPU"] == "true"
    assert int(environment["OMP_NUM_THREADS"]) >= 1


def test_ddp_really_starts_two_processes(toys, cli):
    pytest.importorskip("torch")
    done = cli("run", "--json", "recipe=toy", "launch=ddp", "only=toymodel")
    assert done.code == 0
    assert done.json["steps"]["toymodel"]["metrics"]["processes"] == 2


def test_a_launcher_that_starts_fewer_processes_is_caught(toys, monkeypatch):
    def one_process(self, folder, trains):
        return [sys.executable, "-m", "llmstages.pipeline.worker", str(folder)]

    monkeypatch.setattr(Launch, "command", one_process)
    pages = step("pages", "toypages.count")
    corpus = step("corpus", "toycorpus.clean", {}, documents=pages)
    model = step("model", "toymodel.plain", {}, corpus=corpus)
    launch = Launch(backend="torchrun", processes=2)
    with pytest.raises(StageError, match="asked for 2 processes and the launcher started 1"):
        run([pages, corpus, model], launch=launch, quiet=True)


def test_a_killed_worker_is_told(toys, monkeypatch):
    monkeypatch.setattr(
        Launch, "command", lambda *_: [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    )
    with pytest.raises(StageError, match=r"killed by signal 9 \(often: out of memory\)"):
        run([step("pages", "toypages.count")], launch=Launch(backend="single"), quiet=True)


def test_an_artifact_without_its_files_is_not_committed(toys, monkeypatch):
    from llmstages import load_stage

    monkeypatch.setattr(load_stage("toypages.count"), "run", lambda self, config, ctx: {})
    with pytest.raises(StageError, match="left its documents without data"):
        run([step("pages", "toypages.count")], quiet=True)
    assert not list((toys / "store").glob("pages-*"))


def test_from_python(toys, capsys):
    pages = step("pages", "toypages.count", {"count": 2})
    corpus = step("corpus", "toycorpus.clean", {}, documents=pages)
    model = step("model", "toymodel.plain", {}, corpus=[corpus])
    made = run([pages, corpus, model], store="store", runs="runs", name="py")
    assert made["model"].kind == "model" and (made["model"].path / "record.json").exists()
    assert (toys / "runs/py/model").resolve() == made["model"].path
    assert capsys.readouterr().out == "", "messages go to standard error"


def test_a_record_says_how_a_step_was_made(toys, cli):
    cli("run", "recipe=toy")
    record = json.loads((toys / "runs/toy/tuned/record.json").read_text())
    assert record["inputs"] == {"corpus": ["toycorpus"], "base": ["toymodel"]}
    assert record["config"] == {"learning_rate": 0.001, "seed": 0}
    assert record["versions"]["python"]
    assert record["argv"][1:] == ["run", "recipe=toy"]
    assert record["peak_mb"] > 0
    assert set(record["files"]) == {"config.json", "tokenizer_config.json"}
    assert len(record["digest"]) == 64


def test_a_step_can_be_repeated_by_hand(toys, monkeypatch):
    monkeypatch.setenv("TOY", "stage")
    pages = step("pages", "toypages.count")
    corpus = step("corpus", "toycorpus.clean", {}, documents=pages)
    model = step("model", "toymodel.plain", {}, corpus=corpus)
    with pytest.raises(StageError):
        run([pages, corpus, model], quiet=True)
    folder = next((toys / "store/.tmp").glob("model-*"))
    done = subprocess.run(
        [sys.executable, "-m", "llmstages.pipeline.worker", str(folder)],
        env={**os.environ, "TOY": ""},
        cwd="/",
    )
    assert done.returncode == 0
    assert json.loads((folder / "metrics.json").read_text())["loss"] == 1.0
