"""NVML, the NVIDIA driver's library, from its start to its end, and how to ask it without being taken down by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, TypeVar

from qlora_tui.text import one_line

T = TypeVar("T")

# NVML's own numbers, so that nothing has to be imported to understand an error.
_NOT_SUPPORTED, _FUNCTION_NOT_FOUND = 3, 13
_INIT_FAILURES = {
    4: "The NVIDIA driver refuses access to this user.",
    9: "The NVIDIA driver is installed but not loaded.",
    12: "No NVIDIA driver is installed: its library libnvidia-ml was not found.",
    18: "The loaded NVIDIA driver and its library differ in version, as after an update without a restart.",
}


class Nvml(Protocol):
    """The part of ``pynvml`` that is used; any function may raise, and an old library may lack one."""

    nvmlMemory_v2: int  # noqa: N815

    def nvmlInit(self) -> None: ...  # noqa: N802
    def nvmlShutdown(self) -> None: ...  # noqa: N802
    def nvmlSystemGetDriverVersion(self) -> Any: ...  # noqa: N802
    def nvmlSystemGetCudaDriverVersion_v2(self) -> int: ...  # noqa: N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...  # noqa: N802
    def nvmlDeviceGetName(self, handle: Any) -> Any: ...  # noqa: N802
    def nvmlDeviceGetUUID(self, handle: Any) -> Any: ...  # noqa: N802
    def nvmlDeviceGetMemoryInfo(self, handle: Any, version: int | None = None) -> Any: ...  # noqa: N802
    def nvmlDeviceGetCudaComputeCapability(self, handle: Any) -> Sequence[int]: ...  # noqa: N802
    def nvmlDeviceGetEccMode(self, handle: Any) -> Sequence[int]: ...  # noqa: N802
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Sequence[Any]: ...  # noqa: N802
    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: Any) -> Sequence[Any]: ...  # noqa: N802
    def nvmlDeviceGetMigMode(self, handle: Any) -> Sequence[int]: ...  # noqa: N802
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int: ...  # noqa: N802
    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int) -> Any: ...  # noqa: N802
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...  # noqa: N802
    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int: ...  # noqa: N802
    def nvmlDeviceGetTemperatureV(self, handle: Any, sensor: int) -> int: ...  # noqa: N802
    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int: ...  # noqa: N802
    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any) -> int: ...  # noqa: N802
    def nvmlDeviceGetClockInfo(self, handle: Any, kind: int) -> int: ...  # noqa: N802
    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any) -> int: ...  # noqa: N802
    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int: ...  # noqa: N802


def system_nvml() -> Nvml:
    """The real library.

    Raises:
        ImportError: if its Python bindings are missing or broken.
    """
    import pynvml

    library: Nvml = pynvml
    return library


def words(error: BaseException) -> str:
    """What an exception of NVML says, printable and never empty."""
    try:
        return one_line(str(error)) or type(error).__name__
    except Exception:  # its text asks the library, which may be what is broken
        return type(error).__name__


class Session:
    """NVML from its start to its end; for ``with``, which never raises because of NVML.

    Attributes:
        problem: Why NVML cannot be used, in a sentence; None if it can.
    """

    def __init__(self, library: Nvml | None = None) -> None:
        self._given = library
        self.library: Nvml | None = None
        self.problem: str | None = None

    def __enter__(self) -> Session:
        try:
            library = self._given if self._given is not None else system_nvml()
            library.nvmlInit()
            self.library = library
        except ImportError as error:
            self.problem = f"The package nvidia-ml-py cannot be imported ({words(error)})."
        except Exception as error:
            self.problem = _why_no_nvml(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.library is not None:
            with suppress(Exception):
                self.library.nvmlShutdown()
            self.library = None


def _why_no_nvml(error: Exception) -> str:
    known = _INIT_FAILURES.get(getattr(error, "value", None) or 0)
    return known or f"The NVIDIA driver does not answer ({words(error)})."


@dataclass(slots=True)
class Reader:
    """Reads fields one by one and remembers which failed, and why."""

    unread: list[tuple[str, str]] = field(default_factory=list)

    def read(self, name: str, ask: Callable[[], T]) -> T | None:
        """What ``ask`` returns, or None if it fails; what this card or driver does not have is not a failure."""
        try:
            return ask()
        except Exception as error:
            if getattr(error, "value", None) not in (_NOT_SUPPORTED, _FUNCTION_NOT_FOUND):
                self.unread.append((name, words(error)))
            return None


def text_of(value: Any) -> str | None:
    """A string of NVML, which older bindings give as bytes; None if it is empty."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    return (one_line(str(value), 80) or None) if value is not None else None


def either(first: Callable[[], T], second: Callable[[], T]) -> T | None:
    """The first answer of two: drivers rename functions, and each knows only its own age's name."""
    with suppress(Exception):
        return first()
    with suppress(Exception):
        return second()
    return None
