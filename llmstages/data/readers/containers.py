"""JSON files of other programs in which the rows are not simply a list of objects.

pandas (``to_json`` by columns and ``orient="split"``), the rows of the Hub's data server, and
SQuAD's own file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llmstages.data.readers.record import Rejected


def rows_in(value: Mapping[str, Any]) -> list[Any] | None:
    """The rows of an object in one of these forms (a mapping or a Rejected each); else None."""
    for form in (_of_split, _of_columns, _of_server, _of_squad):
        rows = form(value)
        if rows is not None:
            return rows
    return None


def _of_split(value: Mapping[str, Any]) -> list[Any] | None:
    """``{"columns": [...], "index": [...], "data": [[...], ...]}``."""
    names, table = value.get("columns"), value.get("data")
    if not isinstance(names, list) or not isinstance(table, list):
        return None
    if not all(isinstance(cells, list) and len(cells) == len(names) for cells in table):
        return None
    return [dict(zip(map(str, names), cells, strict=True)) for cells in table]


def _of_columns(value: Mapping[str, Any]) -> list[Any] | None:
    """``{"question": {"0": ..., "1": ...}, "answer": {"0": ..., "1": ...}}``."""
    columns = list(value.values())
    if not columns or not all(isinstance(column, Mapping) and column for column in columns):
        return None
    index = list(columns[0])
    is_table = all(list(column) == index for column in columns) and all(map(str.isdigit, index))
    if not is_table:
        return None
    return [{name: value[name][place] for name in value} for place in index]


def _of_server(value: Mapping[str, Any]) -> list[Any] | None:
    """``{"rows": [{"row_idx": 0, "row": {...}, "truncated_cells": []}]}``."""
    listed = value.get("rows")
    if not isinstance(listed, list) or not listed:
        return None
    if not all(
        isinstance(item, Mapping) and isinstance(item.get("row"), Mapping) for item in listed
    ):
        return None
    rows: list[Any] = []
    for item in listed:
        cut = item.get("truncated_cells")
        if cut:
            names = ", ".join(map(str, cut))
            rows.append(Rejected("", f"the server cut its cells off: {names}", "truncated"))
        else:
            rows.append(item["row"])
    return rows


def _of_squad(value: Mapping[str, Any]) -> list[Any] | None:
    """``{"data": [{"paragraphs": [{"context": ..., "qas": [...]}]}]}`` (Rajpurkar et al. 2016)."""
    articles = value.get("data")
    if not isinstance(articles, list) or not articles:
        return None
    if not all(isinstance(article, Mapping) and "paragraphs" in article for article in articles):
        return None
    return list(_questions(articles))


def _questions(articles: list[Any]) -> Iterator[dict[str, Any]]:
    for article in articles:
        for paragraph in article["paragraphs"]:
            for question in paragraph.get("qas", ()):
                texts = [answer.get("text") for answer in question.get("answers") or ()]
                yield {
                    "question": f"{paragraph.get('context', '')}\n\n{question.get('question', '')}",
                    "answers": texts,
                    "id": question.get("id"),
                    "title": article.get("title"),
                }
