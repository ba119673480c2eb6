"""Fingerprints and reasons: what makes a step new, what does not, and how the plan says it."""

import pytest

from llmstages import Step, run, step
from llmstages.core.errors import StageError
from llmstages.pipeline.plan import make_plan
from llmstages.pipeline.store import Store


def chain(rate=1e-6, count=3, **clean):
    pages = step("pages", "toypages.count", {"count": count})
    corpus = step("corpus", "toycorpus.clean", clean, documents=pages)
    return [pages, corpus, step("model", "toymodel.plain", {"learning_rate": rate}, corpus=corpus)]


def whys(steps, store="store"):
    return {p.step.name: p.why or p.state for p in make_plan(steps, Store(store))}


def test_from_never_run_to_reused_to_the_reason(toys):
    assert set(whys(chain()).values()) == {"never run"}
    run(chain(), quiet=True)
    assert set(whys(chain()).values()) == {"reused"}
    why = whys(chain(rate=2e-6))
    assert why["corpus"] == "reused" and why["model"].startswith(
        "learning_rate 1e-6 -> 2e-6 (nearest model-"
    )
    why = whys(chain(count=4))
    assert why["pages"].startswith("count 3 -> 4") and why["corpus"].startswith(
        "input documents changed (pages is new)"
    )


def test_the_nearest_result_is_the_one_with_the_fewest_differences(toys):
    run(chain(rate=1.0), quiet=True)
    run(chain(rate=2.0, count=5), quiet=True)
    assert whys(chain(rate=3.0, count=5))["model"].startswith("learning_rate 2 -> 3 (")


def test_what_does_not_change_the_result_does_not_change_the_fingerprint(toys):
    run(chain(), quiet=True)
    assert whys(chain(workers=9))["corpus"] == "reused"
    assert (
        whys(chain(filters={"toy_short": {"use": "toy_short", "verbose": True}}))["corpus"]
        == "reused"
    )
    assert (
        "filters.toy_short.most 100 -> 5"
        in whys(chain(filters={"toy_short": {"use": "toy_short", "most": 5}}))["corpus"]
    )
    assert "filters.toy_short removed" in whys(chain(filters={}))["corpus"]


def test_fingerprints_are_the_same_in_every_folder_and_store(toys, monkeypatch):
    here = [p.fingerprint for p in make_plan(chain(), Store("store"))]
    (toys / "other").mkdir()
    monkeypatch.chdir(toys / "other")
    assert [p.fingerprint for p in make_plan(chain(), Store("elsewhere"))] == here


def test_files_count_by_content_and_name_not_by_folder(toys):
    (toys / "other").mkdir()
    for name in ("a.txt", "b.txt", "other/a.txt"):
        (toys / name).write_text("one")
    run(chain(files="a.txt"), quiet=True)
    assert whys(chain(files="other/a.txt"))["corpus"] == "reused"
    assert whys(chain(files="b.txt"))["corpus"].startswith("the content of files changed"), (
        "its name stands in the ids of its rows"
    )
    (toys / "other" / "a.txt").write_text("two")
    assert whys(chain(files="other/a.txt"))["corpus"].startswith("the content of files changed")
    assert "the content of files changed" in whys(chain(files="*.txt"))["corpus"]


def test_a_missing_file_names_the_field_and_what_is_near(toys):
    (toys / "words.txt").write_text("one")
    with pytest.raises(
        StageError, match="corpus.files: no file 'word.txt'. Did you mean 'words.txt'"
    ):
        whys(chain(files="word.txt"))
    with pytest.raises(StageError, match="folder 'nowhere' does not exist"):
        whys(chain(files="nowhere/word.txt"))


def test_new_code_is_a_new_result(toys, monkeypatch):
    run(chain(), quiet=True)
    from llmstages import load_stage

    monkeypatch.setattr(load_stage("toymodel.plain"), "version", "2")
    assert whys(chain())["model"].startswith("its code changed (version 1 -> 2)")


def test_wrong_kinds_are_found_before_any_work(toys):
    pages, corpus, model = chain()
    wrong = step("tuned", "toymodel.plain", {}, base=pages)
    with pytest.raises(
        StageError,
        match="'tuned' .* takes model as 'base', but 'pages' gives documents. .*fit: model",
    ):
        run([pages, corpus, model, wrong], quiet=True)
    assert not (toys / "store").exists()


def test_steps_out_of_order_and_values_json_cannot_say_are_refused(toys):
    pages, corpus, model = chain()
    with pytest.raises(StageError, match="takes 'pages', which is not before it"):
        whys([corpus, pages])
    config = type(model.config)(learning_rate=float("nan"))
    with pytest.raises(StageError, match="only what JSON can say"):
        whys([pages, corpus, Step("model", model.uses, model.stage, config, model.inputs)])


def test_the_names_of_many_inputs_count_since_results_are_labelled_by_them(toys):
    pages = step("pages", "toypages.count")
    again = step("again", "toypages.count")
    one, two = (
        make_plan([s, step("report", "toyreport.page", {}, steps=[s])], Store("store"))[-1]
        for s in (pages, again)
    )
    assert one.fingerprint != two.fingerprint


def test_from_python_wrong_keys_inputs_and_choices_are_refused(toys):
    with pytest.raises(StageError, match="Did you mean 'learning_rate'"):
        step("model", "toymodel.plain", {"learning_rte": 1})
    with pytest.raises(StageError, match="no input 'corpse'. Did you mean 'corpus'"):
        step("model", "toymodel.plain", {}, corpse="x")
    with pytest.raises(StageError, match="none of fast, slow"):
        chain(mode="fats")
    with pytest.raises(
        StageError, match="model.learning_rate is 'fast', which is not of type float"
    ):
        chain(rate="fast")
    assert chain(rate=1)[-1].config.learning_rate == 1.0
    with pytest.raises(StageError, match="documents: .*no step before it|needs a documents"):
        step("corpus", "toycorpus.clean")


def test_a_file_is_read_once_however_often_a_run_looks_at_it(toys, monkeypatch):
    from llmstages.core import digest

    read = []
    whole = digest.sha256_file
    monkeypatch.setattr(digest, "sha256_file", lambda path: read.append(path) or whole(path))
    (toys / "words.txt").write_text("one")
    run(chain(files="words.txt"), quiet=True)  # no store yet, so nothing to remember digests in
    assert len(read) == 1
    (toys / "words.txt").write_text("other")
    whys(chain(files="words.txt"))
    assert len(read) == 2
