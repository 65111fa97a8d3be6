"""Models on the hub by words: one question, with a time limit, answered by names and what the hub says of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from qlora_tui.errors import EnvironmentFault
from qlora_tui.models.hub_faults import BAD_TOKEN, reason
from qlora_tui.text import one_line

MOST_FOUND: Final = 20
_SECONDS: Final = 10.0
_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model on the hub. ``licence`` is the hub's tag for it, as the publisher set it."""

    id: str
    downloads: int
    licence: str | None
    gated: bool


def search_hub(words: str) -> list[FoundModel]:
    """Models that write text and whose name fits, most downloaded first, at most :data:`MOST_FOUND`.

    Raises:
        EnvironmentFault: if the hub cannot be asked.
    """
    parameters: dict[str, str | int] = {
        "search": words,
        "filter": "text-generation",
        "sort": "downloads",
        "direction": -1,
        "limit": MOST_FOUND,
    }
    try:
        headers = build_hf_headers()
        response = get_session().get(
            f"{constants.ENDPOINT}/api/models", params=parameters, headers=headers, timeout=_SECONDS
        )
        hf_raise_for_status(response)
        answer = response.json()
    except UnicodeEncodeError:
        why = BAD_TOKEN
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        why = reason(error)
    except ValueError:
        why = "the answer is not a hub's, perhaps a login page of the network"
    else:
        return [found for each in _list(answer) if (found := _found(each)) is not None][:MOST_FOUND]
    # Outside the handlers on purpose: an answer may repeat the token it was sent, so it must not become the context of
    # what is raised here.
    raise EnvironmentFault(
        "The hub cannot be searched.",
        f"{why[:1].upper()}{why[1:]}.",
        "Check the network, or type the model's owner/name or folder.",
    )


def _list(answer: Any) -> list[Any]:
    return answer if isinstance(answer, list) else []


def _found(values: Any) -> FoundModel | None:
    """What the hub says of one model; None if it is not a model's description."""
    if not isinstance(values, dict) or not isinstance(values.get("id"), str) or not _ID.fullmatch(values["id"]):
        return None
    tags = values.get("tags")
    names = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
    licence = next((tag.removeprefix("license:") for tag in names if tag.startswith("license:")), None)
    downloads = values.get("downloads")
    return FoundModel(
        id=values["id"],
        downloads=downloads if isinstance(downloads, int) else 0,
        licence=one_line(licence, 40) if licence else None,
        gated=bool(values.get("gated")),
    )
