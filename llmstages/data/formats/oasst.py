"""OpenAssistant trees (Köpf et al. 2023): one prompt, several replies to each message, ranked by people.

Two spellings: a nested tree a row (``prompt`` with ``replies``, the JSONL exports), and a message a row (``message_id``,
``parent_id``, the sets oasst1 and oasst2 on the Hub). Messages are gathered to trees while they stream: those of a tree follow
each other there, so memory holds one tree. A tree gives one dialogue, the path of the replies people ranked best.
Left out on purpose: the other paths, which are no demonstrations but what the best reply was preferred to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llmstages.data.formats.turns import InvalidRow, Message, Row, turns

GATHERED = "messages_of_tree"  # the field under which gathered() hands on the rows of one tree
SPAM = 0.5  # share of reviewers who called it spam, from which it is


def is_message(row: Any) -> bool:
    """Whether a row is one message of a tree."""
    return (
        isinstance(row, Mapping)
        and {"message_id", "parent_id", "text", "role"} <= row.keys()
        and isinstance(row["message_id"], str)
        and isinstance(row["parent_id"], str | None)
    )


def is_tree(row: Row) -> bool:
    """Whether a row is a whole tree."""
    return GATHERED in row or (
        isinstance(row.get("prompt"), Mapping) and "replies" in row["prompt"]
    )


def gathered(source: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The same rows, with runs of messages of one tree as one row at the position of the first; everything else passes."""
    place, tree, members = "", None, list[Row]()
    for position, row in source:
        if is_message(row):
            own = row.get("message_tree_id") or (tree if row["parent_id"] else row["message_id"])
            if members and own == tree:
                members.append(row)
                continue
        if members:
            yield place, {GATHERED: members}
            members = []
        if is_message(row):
            place, tree, members = position, own, [row]
        else:
            yield position, row
    if members:
        yield place, {GATHERED: members}


def best_path(row: Row, left_out: Counter[str]) -> list[Message]:
    """The messages from the prompt down the best ranked usable replies; what is not on the way is counted in left_out."""
    node = _nested(row[GATHERED], left_out) if GATHERED in row else row.get("prompt")
    if not isinstance(node, Mapping):
        raise InvalidRow("format", "prompt is no message with replies")
    state = str(row.get("tree_state") or node.get("tree_state") or "")
    if state.startswith(("aborted", "halted")):
        raise InvalidRow("tree_state", f"the tree was given up: {state}")
    if why := _refused(node):
        raise InvalidRow(why, f"the first message of the tree is {why}")
    path: list[Mapping[str, Any]] = []
    while node is not None:
        path.append({"role": node.get("role"), "content": node.get("text")})
        node = _best(_replies(node), left_out)
    return turns(path, left_out)


def _nested(rows: list[Row], left_out: Counter[str]) -> Mapping[str, Any]:
    """The tree of a list of messages."""
    nodes = [{**row, "replies": []} for row in rows]
    by_id = {node["message_id"]: node for node in reversed(nodes)}
    first = [node for node in nodes if not node["parent_id"]]
    if len(first) != 1:
        raise InvalidRow(
            "no_tree",
            f"{len(rows)} messages with {len(first)} first ones among them; the messages of a tree must follow "
            "each other: sort the rows by message_tree_id",
        )
    for node in nodes:
        if node["parent_id"] in by_id and node is not first[0]:
            by_id[node["parent_id"]]["replies"].append(node)
    left_out["messages whose parent is missing"] += len(nodes) - _size(first[0])
    return first[0]


def _replies(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = node.get("replies") or []
    return (
        [reply for reply in found if isinstance(reply, Mapping)] if isinstance(found, list) else []
    )


def _best(replies: list[Mapping[str, Any]], left_out: Counter[str]) -> Mapping[str, Any] | None:
    """The usable reply of the lowest rank; unranked ones come after, and of those the first that was itself replied to."""
    usable = []
    for reply in replies:
        if why := _refused(reply):
            left_out[f"{why} messages"] += 1
            left_out["messages below those"] += _size(reply) - 1
        else:
            usable.append(reply)
    usable.sort(
        key=lambda reply: (
            reply["rank"] if isinstance(reply.get("rank"), (int, float)) else float("inf"),
            not _replies(reply),
        )
    )
    left_out["messages off the best ranked path"] += sum(map(_size, usable[1:]))
    return usable[0] if usable else None


def _size(node: Mapping[str, Any]) -> int:
    """Messages of a tree; a loop, since a hostile file nests deeper than Python recurses."""
    count, waiting = 0, [node]
    while waiting:
        count += 1
        waiting += _replies(waiting.pop())
    return count


def _refused(node: Mapping[str, Any]) -> str:
    """Why a message is not to be used: deleted, spam, rejected in review, unreviewed; else "". Absent fields say nothing."""
    if node.get("deleted"):
        return "deleted"
    if _spam(node.get("labels")) >= SPAM:
        return "spam"
    if "review_result" in node and not node["review_result"]:
        return "unreviewed" if node["review_result"] is None else "rejected"
    return ""


def _spam(labels: Any) -> float:
    """The share of spam among labels: {spam: {value: 0.1}} in the exports, {name: [spam], value: [0.1]} on the Hub."""
    if not isinstance(labels, Mapping):
        return 0.0
    names, values = labels.get("name"), labels.get("value")
    if isinstance(names, list) and isinstance(values, list):
        value = next((value for name, value in zip(names, values) if name == "spam"), 0)
    else:
        value = labels["spam"].get("value") if isinstance(labels.get("spam"), Mapping) else 0
    return value if isinstance(value, (int, float)) else 0.0
