"""What the serving process can be asked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter

Side = Literal["adapter", "base"]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    id: int = 0


class Load(_Request):
    """Load the adapter that ``target`` means, on its base or on another one."""

    do: Literal["load"]
    target: str
    base: str | None = None


class TurnText(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    role: Literal["user", "assistant"]
    content: str


class Generate(_Request):
    """Answer a conversation. None leaves the choice to the run: its system prompt, its seed."""

    do: Literal["generate"]
    turns: Annotated[list[TurnText], Field(min_length=1)]
    side: Side = "adapter"
    system: str | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_048_576)] = 256
    temperature: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class Rows(_Request):
    """The first held-out rows of the run whose adapter is loaded, with their answers."""

    do: Literal["rows"]
    count: Annotated[int, Field(ge=1, le=1000)] = 20


class Unload(_Request):
    """Give the memory back."""

    do: Literal["unload"]


class Merge(_Request):
    """Merge an adapter into 16-bit weights."""

    do: Literal["merge"]
    target: str
    output: str
    exact: bool = False
    overwrite: bool = False
    base: str | None = None


class Push(_Request):
    """Push a folder to the hub. Without a token, the one that the hub's client knows."""

    do: Literal["push"]
    folder: str
    repository: str
    private: bool = True
    token: SecretStr | None = None


class Stop(_Request):
    """End what is being done."""

    do: Literal["stop"]


Request = Load | Generate | Rows | Unload | Merge | Push | Stop
REQUESTS: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="do")])
