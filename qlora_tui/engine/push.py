"""A folder pushed to the hub: safetensors, settings and card, nothing else, and never a word about the token."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from qlora_tui.errors import EnvironmentFault, QloraError, UsageError
from qlora_tui.text import one_line

Progress = Callable[[str], None]

CARD = "README.md"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
PUSHED = (
    "*.safetensors", "*.safetensors.index.json", "adapter_config.json", "config.json", "generation_config.json",
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "chat_template*",
    CARD, "Modelfile", "merge.json",
)  # fmt: skip


def push(folder: Path, repository: str, *, private: bool, token: str | None, progress: Progress) -> str:
    """Push a folder; the address of the repository.

    Args:
        token: A token to write with; None leaves it to the hub's client (``HF_TOKEN``, ``hf auth login``).

    Raises:
        QloraError: if the folder or the name cannot be used, or the hub refuses.
    """
    folder = folder.expanduser().absolute()
    _check(folder, repository)
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise EnvironmentFault(
            "Nothing was pushed.", "HF_HUB_OFFLINE is set.", "Unset it, or push from another machine."
        )
    progress("asking the hub")
    try:
        return _push(folder, repository, private, token, progress)
    except Exception as error:
        # Without its cause: a server's answer, and so a traceback, may repeat the token that it was sent.
        raise _explained(error, repository) from None


def _check(folder: Path, repository: str) -> None:
    if not _NAME.fullmatch(repository):
        raise UsageError(
            f"The name {one_line(repository, 80)!r} cannot be used.",
            "A repository on the hub is written owner/name, with letters, digits, '.', '_' and '-'.",
            "Give one such as yourname/spam-triage.",
        )
    if not folder.is_dir() or next(folder.glob("*.safetensors"), None) is None:
        raise UsageError(
            f"There is nothing to push in {one_line(str(folder), 200)}.",
            "It holds no safetensors file.",
            "Give an adapter's folder or a merged model.",
        )


def _push(folder: Path, repository: str, private: bool, token: str | None, progress: Progress) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(token=token)
    address = api.create_repo(repository, private=private, exist_ok=True)
    files = sorted({path for pattern in PUSHED for path in folder.glob(pattern) if path.is_file()})
    size = sum(path.stat().st_size for path in files)
    progress(f"pushing {len(files)} files, {size / 1e6:,.1f} MB")
    # The card as bytes: what the snippet in it loads is another thing on the hub than in the folder.
    operations = [
        CommitOperationAdd(path.name, _card_for_hub(path, repository) if path.name == CARD else path) for path in files
    ]
    api.create_commit(repository, operations, commit_message="Upload with qlora-tui")
    return str(address)


def _card_for_hub(path: Path, repository: str) -> bytes:
    """Our card with its snippet loading from the hub, not from the folder beside it."""
    card = path.read_text(encoding="utf-8", errors="replace")
    card = card.replace("ADAPTER = '.'  # this folder", f"ADAPTER = {repository!r}  # on the hub")
    card = card.replace("FOLDER = '.'\n", f"FOLDER = {repository!r}\n").replace(
        "vllm serve . ", f"vllm serve {repository} "
    )
    return card.replace("Then in this folder, with or", "Then anywhere, with or").encode()


def _explained(error: Exception, repository: str) -> QloraError:
    """The three sentences for what the hub's client raised; nothing that a server wrote is passed on."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    from qlora_tui.models.hub_faults import reason

    what = f"Nothing was pushed to {one_line(repository, 120)}."
    log_in = "Make a token that may write (hub, settings, access tokens), then `hf auth login` or set HF_TOKEN."
    if isinstance(error, LocalTokenNotFoundError):
        return EnvironmentFault(what, "There is no token.", log_in)
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status == 401:
            return EnvironmentFault(what, "The hub does not accept the token, or there is none.", log_in)
        if status == 403:
            return EnvironmentFault(what, "This token or account may not write there.", log_in)
        if status == 409:
            return EnvironmentFault(what, "Somebody changed the repository at the same time.", "Push again.")
    why = reason(error)
    return EnvironmentFault(what, f"{why[:1].upper()}{why[1:]}.", "Check the network and any proxy, then push again.")
