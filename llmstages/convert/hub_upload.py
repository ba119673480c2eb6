"""A model folder as a repository of the Hugging Face Hub, private unless told otherwise.

All files go up in one commit, so a repository never shows half of a model. Large files are stored
before the commit: after an interruption the same command continues, because what the Hub already
has is not sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmstages.convert.hf_folder import CARD, files_of_model
from llmstages.core.errors import StageError, first_line

LOGS = ("log.jsonl", "checks.json")  # of training; sent only if asked for
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
SHOWN_CHARACTERS = 200  # of a message of the Hub


@dataclass(frozen=True)
class Upload:
    """What was sent.

    Attributes:
        address: of the repository, for people.
        commit: its id.
        files: number of files in the commit.
        bytes: their size.
        private: whether the repository is private.
    """

    address: str
    commit: str
    files: int
    bytes: int
    private: bool


def files_to_send(folder: Path, logs: bool = False) -> list[Path]:
    """The files of a model folder that belong on the Hub, relative to it.

    Left out are records, checkpoints and optimizer states.

    Args:
        logs: also the log of training and its checks.

    Raises:
        StageError: the folder has neither a model, an adapter nor a tokenizer.
    """
    belonging, others = files_of_model(folder)
    wanted = (*ADAPTER_FILES, CARD, *(LOGS if logs else ()))
    files = belonging + [name for name in others if name.as_posix() in wanted]
    names = {name.as_posix() for name in files}
    if not names & {"config.json", "adapter_config.json", "tokenizer_config.json"}:
        raise StageError(
            f"{folder} has neither a model (config.json), an adapter (adapter_config.json) nor a "
            "tokenizer (tokenizer_config.json)"
        )
    return sorted(files)


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    card: str = "",
    public: bool = False,
    revision: str = "",
    logs: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Upload:
    """Send a model folder to a repository of the Hub; it is created if it is not there.

    Args:
        repo_id: ORG/NAME.
        card: text of README.md; "" takes the folder's own.
        public: whether a new repository is public. An existing one stays as it is, and one that
            is public is refused without this.
        revision: a branch, created if it is not there; "" is main.
        logs: also send the log of training and its checks.
        say: called with lines for people.

    Raises:
        StageError: the name is not valid, nobody is logged in, write access is missing, the Hub
            cannot be reached, or the repository is public and ``public`` is not set.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    _refuse_name(repo_id)
    files = files_to_send(folder, logs)
    api = HfApi()
    if not api.token and not _saved_token():
        raise StageError(
            "nobody is logged in to the Hub: run `hf auth login`, or set HF_TOKEN to a token with "
            "write access (https://huggingface.co/settings/tokens)"
        )
    contents: dict[str, Any] = {name.as_posix(): folder / name for name in files}
    if card:
        contents[CARD] = card.encode()
    size = sum(_size(content) for content in contents.values())
    operations = []
    for name, content in contents.items():
        source = content if isinstance(content, bytes) else str(content)
        operations.append(CommitOperationAdd(path_in_repo=name, path_or_fileobj=source))
    with _explained(repo_id):
        api.create_repo(repo_id, private=not public, exist_ok=True)
        private = bool(api.repo_info(repo_id).private)
        if not private and not public:
            # It was there before, so that it is public whatever was asked for.
            raise StageError(
                f"{repo_id} exists already and is public. Choose another name, or say that "
                "everybody may see the model: --public"
            )
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        say(f"{len(operations)} files, {size / 1e6:,.1f} MB, to {api.endpoint}/{repo_id}")
        done = api.create_commit(
            repo_id,
            operations,
            commit_message=f"Model {folder.name} from llmstages",
            revision=revision or None,
        )
    return Upload(f"{api.endpoint}/{repo_id}", done.oid, len(operations), size, private)


def _size(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _saved_token() -> str:
    from huggingface_hub import get_token

    return get_token() or ""


def _refuse_name(repo_id: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    problem = "" if repo_id.count("/") == 1 else "it has to be ORG/NAME"
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        problem = str(error)
    if problem:
        raise StageError(
            f"{repo_id!r} is not a name of a repository: {problem}. An example: my-name/my-model"
        )


@contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    """Errors of the Hub and of the network become messages for people."""
    try:
        yield
    except StageError:
        raise
    # Network, access, names: the libraries raise a dozen kinds of exceptions.
    except Exception as error:
        raise StageError(_without_token(explain(error, repo_id))) from None


def explain(error: Exception, repo_id: str) -> str:
    """What went wrong with a repository, and what to do."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    causes = [error]
    while isinstance(causes[-1].__cause__, Exception):
        causes.append(causes[-1].__cause__)
    again = "The same command continues: what has arrived is not sent again"
    for cause in causes:
        if isinstance(cause, OfflineModeIsEnabled):
            return f"{repo_id}: the Hub is switched off by HF_HUB_OFFLINE=1; unset it"
        if isinstance(cause, HfHubHTTPError):
            return f"{repo_id}: {_explain_status(cause, repo_id)}"
        if isinstance(cause, OSError) or _is_of_network(cause):
            problem = first_line(cause)[:SHOWN_CHARACTERS]
            return f"{repo_id}: the Hub cannot be reached ({problem}). {again}"
    return f"{repo_id}: {type(error).__name__}: {first_line(error)[:SHOWN_CHARACTERS]}. {again}"


def _is_of_network(error: Exception) -> bool:
    """By name: the client has changed its library for HTTP from version to version."""
    return any(base.__name__ == "TransportError" for base in type(error).__mro__)


def _explain_status(error: Any, repo_id: str) -> str:
    status = error.response.status_code if error.response is not None else 0
    message = getattr(error, "server_message", None) or first_line(error)[:SHOWN_CHARACTERS]
    if status == 401:
        return (
            f"the Hub does not accept the token ({message}): run `hf auth login` with a token that "
            "has write access"
        )
    if status in (402, 403, 404):
        organization = repo_id.partition("/")[0]
        return (
            f"no write access to {organization} ({message}): check the name, your membership and "
            "that the token has write access (`hf auth whoami`)"
        )
    return f"the Hub answered {status} ({message})"


def _without_token(text: str) -> str:
    """Messages may be pasted into a report, so the token is never in them."""
    token = _saved_token()
    return text.replace(token, "***") if token else text
