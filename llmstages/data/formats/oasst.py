"""OpenAssistant trees (Köpf et al. 2023): a prompt, and several ranked replies to each message.

There are two layouts: one nested tree per row (``prompt`` with ``replies``, the JSONL exports), and
one message per row (``message_id``, ``parent_id``; oasst1 and oasst2 on the Hub). The messages of
a tree follow each other there, so they are gathered while they stream, and memory holds one tree.
A tree gives one dialogue: the path of the best ranked replies. The other paths are left out on
purpose. They are not demonstrations, but what the best reply was preferred to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llmstages.data.formats.turns import InvalidRow, Message, Row, turns

GATHERED = "messages_of_tree"  # the field of a row of gather_trees() that holds the messages
SPAM = 0.5  # share of reviewers who called a message spam, from which it counts as spam


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
    if GATHERED in row:
        return True
    prompt = row.get("prompt")
    return isinstance(prompt, Mapping) and "replies" in prompt


def gather_trees(source: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The rows of a source, with successive messages of one tree joined into one row.

    That row has the position of the first message. All other rows pass unchanged.
    """
    tree_position = ""
    tree_id: Any = None
    members: list[Row] = []
    for position, row in source:
        if is_message(row):
            own_tree = row.get("message_tree_id")
            if not own_tree:
                own_tree = tree_id if row["parent_id"] else row["message_id"]
            if members and own_tree == tree_id:
                members.append(row)
                continue
            if members:
                yield tree_position, {GATHERED: members}
            tree_position = position
            tree_id = own_tree
            members = [row]
            continue
        if members:
            yield tree_position, {GATHERED: members}
            members = []
        yield position, row
    if members:
        yield tree_position, {GATHERED: members}


def best_path(row: Row, left_out: Counter[str]) -> list[Message]:
    """The messages from the prompt down the best ranked usable replies.

    The messages that are not on the path are counted in left_out. Raises InvalidRow if the prompt
    is not usable.
    """
    node = _nested(row[GATHERED], left_out) if GATHERED in row else row.get("prompt")
    if not isinstance(node, Mapping):
        raise InvalidRow("format", "prompt is not a message with replies")
    state = str(row.get("tree_state") or node.get("tree_state") or "")
    if state.startswith(("aborted", "halted")):
        raise InvalidRow("tree_state", f"the tree was given up: {state}")
    rule = _unusable(node)
    if rule:
        raise InvalidRow(rule, f"the first message of the tree is {rule}")
    path: list[Mapping[str, Any]] = []
    while node is not None:
        path.append({"role": node.get("role"), "content": node.get("text")})
        node = _best(_replies(node), left_out)
    return turns(path, left_out)


def _nested(rows: list[Row], left_out: Counter[str]) -> Mapping[str, Any]:
    """The tree of a list of messages."""
    nodes: list[dict[str, Any]] = [{**row, "replies": []} for row in rows]
    roots = [node for node in nodes if not node["parent_id"]]
    if len(roots) != 1:
        raise InvalidRow(
            "no_tree",
            f"{len(rows)} messages with {len(roots)} first ones among them; the messages of a tree "
            "must follow each other: sort the rows by message_tree_id",
        )
    by_id: dict[str, dict[str, Any]] = {}
    for node in nodes:
        by_id.setdefault(node["message_id"], node)
    for node in nodes:
        if node["parent_id"] in by_id and node is not roots[0]:
            by_id[node["parent_id"]]["replies"].append(node)
    left_out["messages whose parent is missing"] += len(nodes) - _size(roots[0])
    return roots[0]


def _replies(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    replies = node.get("replies")
    if not isinstance(replies, list):
        return []
    return [reply for reply in replies if isinstance(reply, Mapping)]


def _best(replies: list[Mapping[str, Any]], left_out: Counter[str]) -> Mapping[str, Any] | None:
    """The usable reply of the lowest rank.

    Unranked replies come after the ranked ones; of these, the first that has replies itself.
    """
    usable = []
    for reply in replies:
        rule = _unusable(reply)
        if rule:
            left_out[f"{rule} messages"] += 1
            left_out["messages below those"] += _size(reply) - 1
        else:
            usable.append(reply)
    if not usable:
        return None
    usable.sort(key=_preference)
    for reply in usable[1:]:
        left_out["messages off the best ranked path"] += _size(reply)
    return usable[0]


def _preference(reply: Mapping[str, Any]) -> tuple[float, bool]:
    """A sort key: the best reply has the lowest one."""
    rank = reply.get("rank")
    if not isinstance(rank, (int, float)):
        rank = float("inf")
    return rank, not _replies(reply)


def _size(node: Mapping[str, Any]) -> int:
    """The number of messages in a tree."""
    # A loop, because a hostile file nests deeper than Python recurses.
    count = 0
    waiting = [node]
    while waiting:
        count += 1
        waiting += _replies(waiting.pop())
    return count


def _unusable(node: Mapping[str, Any]) -> str:
    """Why a message is not used: deleted, spam, rejected in review or unreviewed; "" if it is."""
    if node.get("deleted"):
        return "deleted"
    if _spam_share(node.get("labels")) >= SPAM:
        return "spam"
    # The nested exports have reviewed messages only, and no such field.
    if "review_result" not in node or node["review_result"]:
        return ""
    return "unreviewed" if node["review_result"] is None else "rejected"


def _spam_share(labels: Any) -> float:
    """The share of reviewers who called a message spam.

    The exports have {spam: {value: 0.1}}, the Hub has {name: [spam], value: [0.1]}.
    """
    if not isinstance(labels, Mapping):
        return 0.0
    names = labels.get("name")
    values = labels.get("value")
    share: Any = None
    if isinstance(names, list) and isinstance(values, list):
        # A damaged row may have fewer values than names.
        for name, value in zip(names, values, strict=False):
            if name == "spam":
                share = value
                break
    elif isinstance(labels.get("spam"), Mapping):
        share = labels["spam"].get("value")
    return share if isinstance(share, (int, float)) else 0.0
