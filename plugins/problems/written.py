"""Questions that a model writes about passages, and what is checked before one is kept.

The writer reads a passage and writes a question with a short answer. A second request shows it the
passage and the question alone: what it cannot answer then is no question about the passage.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from llmstages.core.stage import Context
from llmstages.data.answer_cache import AnswerCache, Answerer
from llmstages.plugins.problems.questions import Outcome, Passage, row_of
from llmstages.text.grading import are_right, contains_value
from llmstages.text.material import TEMPLATE_MARKS, as_material, without_thinking

LONGEST_ANSWER = 8  # words
PAIR = re.compile(
    r"question\W*?:\s*(?P<question>\S.*?)\s*\n\W*answer\W*?:\s*(?P<answer>\S[^\n]*)",
    re.IGNORECASE | re.DOTALL,
)
# A question that only a reader of the passage understands.
POINTS_TO_TEXT = re.compile(
    r"\b(?:th(?:e|is)\s+(?:given\s+)?(?:text|passage|article|document|paragraph|author|material)"
    r"|according to (?:the|this)|mentioned above)\b",
    re.IGNORECASE,
)
EDGES = " \t\"'“”*_."


def write_questions(
    ctx: Context,
    passages: Sequence[Passage],
    writing: Callable[[], Answerer],
    reading: Callable[[Answerer], Answerer],
) -> Outcome:
    """Ask the writer for a question about each passage, and keep those that stand the checks.

    Args:
        ctx: the step.
        passages: what the questions are about.
        writing: gives the writer.
        reading: gives the same model as it answers, without chance.
    """
    cache = AnswerCache(ctx, [])
    outcome = Outcome()
    writer = writing()
    names = [passage.id for passage in passages]
    requests = [request_question(passage.text) for passage in passages]
    drafts: list[tuple[Passage, str, str]] = []
    answers = cache.ask(writer, names, requests, "questions")
    for passage, answer in zip(passages, answers, strict=True):
        question, short, reason = "", "", answer.rule
        if not reason:
            question, short, reason = parse(answer.text, passage.text)
        if reason:
            outcome.drop(passage, reason, answer.text or answer.reason)
        else:
            drafts.append((passage, question, short))
    reader = reading(writer)
    checks = cache.ask(
        reader,
        [passage.id for passage, _, _ in drafts],
        [request_answer(passage.text, question) for passage, question, _ in drafts],
        "answers with the passage",
    )
    texts = [without_thinking(check.text) for check in checks]
    right = are_right(texts, [{"answer": short} for _, _, short in drafts])
    for (passage, question, short), text, is_right in zip(drafts, texts, right, strict=True):
        if is_right:
            outcome.rows.append(row_of(passage, question, short, "written", writer.name))
        else:
            seen = f"{question} {short} | with the passage: {text}"
            outcome.drop(passage, "not answered with the passage", seen)
    outcome.report(ctx)
    return outcome


def request_question(text: str) -> str:
    """Ask for a question and its answer."""
    return (
        f"{as_material(text)}\n\nWrite one question about one fact of the text: a name, a date, a "
        "place or a number. Name what it is about, so that it can be understood and answered by "
        "somebody who does not see the text. The answer has one to five words, copied from the "
        "text, and does not occur in the question. Reply with two lines:\n"
        "Question: ...\nAnswer: ..."
    )


def request_answer(text: str, question: str) -> str:
    """Ask for the answer with the passage in sight."""
    return (
        f"{as_material(text)}\n\nAnswer by this text, in as few words as possible.\n"
        f"Question: {question}\nReply with the answer alone."
    )


def parse(reply: str, passage: str) -> tuple[str, str, str]:
    """(question, answer, "") of a writer's reply, or the reason why it cannot be asked."""
    found = PAIR.search(without_thinking(reply))
    if not found:
        return "", "", "no question and answer"
    question = " ".join(found["question"].split()).strip("\"'“”*_ ")
    answer = " ".join(found["answer"].split()).strip(EDGES)
    return question, answer, question_fault(question, answer, passage)


def question_fault(question: str, answer: str, passage: str) -> str:
    """Why a question is not asked; "" if it is."""
    if not answer or len(answer.split()) > LONGEST_ANSWER:
        return "answer too long"
    if TEMPLATE_MARKS.search(f"{question} {answer}"):
        return "mark of a chat template"
    if not contains_value(passage.casefold(), answer.casefold()):
        return "answer not in the passage"
    if contains_value(question.casefold(), answer.casefold()):
        return "answer in the question"
    if POINTS_TO_TEXT.search(question):
        return "question points to the text"
    return ""
