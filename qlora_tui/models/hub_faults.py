"""What the hub's client raises, told as what happened, why, and what to do.

Nothing a server wrote is passed on: an answer may repeat the token it was sent.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from qlora_tui.errors import DataError, EnvironmentFault, ModelError, QloraError
from qlora_tui.text import one_line

BAD_TOKEN = "HF_TOKEN holds characters that no token has"
_LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is fetched from the hub, in the words of messages."""

    name: str
    setting: str
    page: str
    error: type[QloraError]


MODEL = Wanted("model", "model", "", ModelError)
DATA = Wanted("data set", "data", "datasets/", DataError)


def explain(error: Exception, repository: str, revision: str | None, wanted: Wanted = MODEL) -> QloraError:
    """The error to show for what the hub's client raised while fetching something."""
    what = f"The {wanted.name} {one_line(repository)} cannot be fetched."
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return explain(error.__cause__, repository, revision, wanted)
    if isinstance(error, GatedRepoError):
        page = f"{_endpoint()}/{wanted.page}{repository}"
        return wanted.error(
            what,
            "It is gated: its publisher gives access only to accounts that accepted its terms.",
            f"Accept its terms on its page ({page}), then {_LOG_IN}.",
        )
    if isinstance(error, RevisionNotFoundError):
        return wanted.error(
            what,
            f"It has no revision {one_line(revision or 'main', 60)!r}.",
            f"Correct {wanted.setting}.revision, or leave it null for the default branch.",
        )
    if isinstance(error, HfHubHTTPError):
        return _answered(what, error, wanted)
    return EnvironmentFault(what, _sentence(reason(error)), _remedy(error, wanted))


def _answered(what: str, error: HfHubHTTPError, wanted: Wanted) -> QloraError:
    status = error.response.status_code
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return wanted.error(
            what,
            f"The hub has no such {wanted.name}, or it is private; no file or folder here has this name either.",
            f"Check the spelling (owner/name); for a private {wanted.name} {_LOG_IN}.",
        )
    if status == 401:
        return wanted.error(
            what, "The hub does not accept the token it was sent.", f"Make a new token, then {_LOG_IN}."
        )
    if status == 403:
        return wanted.error(
            what,
            "The hub refuses access to this account or this token.",
            f"Check on the {wanted.name}'s page whether your account has access, and that the token may read it.",
        )
    return EnvironmentFault(what, _sentence(reason(error)), "The fault is the hub's: wait a little and try again.")


def reason(error: Exception) -> str:
    """Why the hub gave nothing, as part of a sentence."""
    hub = f"the hub ({urlsplit(_endpoint()).netloc.rpartition('@')[2]})"
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return reason(error.__cause__)
    if isinstance(error, OfflineModeIsEnabled):
        return "offline mode is on (HF_HUB_OFFLINE)"
    if isinstance(error, HfHubHTTPError):
        return f"{hub} answered with status {error.response.status_code}"
    if isinstance(error, LocalEntryNotFoundError):
        return f"{hub} could not be asked"
    if isinstance(error, httpx2.TimeoutException):
        return f"{hub} did not answer, or stopped sending, for {constants.HF_HUB_DOWNLOAD_TIMEOUT} seconds"
    if isinstance(error, httpx2.LocalProtocolError):
        # Its message quotes the header it stumbled over, and that is where the token stands.
        return BAD_TOKEN
    if isinstance(error, httpx2.HTTPError):
        return f"{hub} cannot be reached: {one_line(str(error))}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {one_line(constants.HF_HUB_CACHE)} is full"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{one_line(error.strerror or '')}: {one_line(str(error.filename))}"
    return one_line(str(error)).rstrip(".")


def _remedy(error: Exception, wanted: Wanted) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        return f"Unset HF_HUB_OFFLINE, or copy the {wanted.name} here and give its folder."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space, or move the hub's cache with HF_HOME; files that are complete are not fetched again."
    if isinstance(error, OSError) and error.errno is not None:
        return "Check that you may write to the hub's cache, or move it with HF_HOME."
    if reason(error) == BAD_TOKEN:
        return "Set HF_TOKEN to a token as the hub shows it, or unset it."
    return "Check the network and any proxy, then try again; files that are complete are not fetched again."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _endpoint() -> str:
    return str(constants.ENDPOINT)
