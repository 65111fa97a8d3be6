"""``lock.json``: everything outside the config that a run's result depends on, and what differs in a later one.

The config says what was asked for; the lock says what it met: library versions, the very bytes of model, data and
chat template, the hardware. A replay compares its own lock with the recorded one and names each difference.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from qlora_tui import __version__
from qlora_tui.config import RunConfig
from qlora_tui.models.sources import ModelFiles
from qlora_tui.runs.files import write_atomic
from qlora_tui.text import one_line

LOCK_VERSION = 1
LIBRARIES = (
    "torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets", "tokenizers", "liger-kernel",
)  # fmt: skip
# Shape and size are equal in every fine-tune of one model, so some of the weights themselves are looked at too.
_SAMPLES, _SAMPLE_BYTES = 64, 4096
_MOST_HEADER_BYTES = 100 << 20


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ModelLock(_Part):
    """The base model."""

    source: str = ""
    revision: str | None = None
    """The hub's commit or the SHA-256 of a GGUF file; null for a folder."""
    fingerprint: str = ""
    """See :func:`model_fingerprint`."""


class HardwareLock(_Part):
    """What computed. ``memory`` in bytes."""

    gpu: str | None = None
    capability: str | None = None
    """Compute capability such as ``9.0``."""
    driver: str | None = None
    cpu: str = ""
    cores: int | None = None
    memory: int | None = None


class Lock(_Part):
    """What a run met. A field that an older version did not write is empty and is not compared."""

    version: int = LOCK_VERSION
    versions: dict[str, str] = {}
    """Python, this program and its libraries; one that is not installed is left out."""
    model: ModelLock = ModelLock()
    data: dict[str, str] = {}
    """SHA-256 of each data file by its part: ``train``, ``evaluation``."""
    template: str = ""
    """SHA-256 of the chat template's source."""
    tokenizer: str = ""
    """SHA-256 of ``tokenizer.json``."""
    hardware: HardwareLock = HardwareLock()
    seed: int | None = None
    platform: str = ""

    def drift(self, actual: Lock) -> list[str]:
        """One sentence for each thing that ``actual`` has otherwise than this lock; empty if nothing differs."""
        return list(_differences(self, actual))


def build_lock(
    config: RunConfig, model: ModelFiles, data_fingerprints: Mapping[str, str], template_fingerprint: str
) -> Lock:
    """The lock of a run that starts now, in this process.

    Args:
        model: The base model, ready to load.
        data_fingerprints: SHA-256 of each data file by its part: ``train``, ``evaluation``.
        template_fingerprint: SHA-256 of the chat template's source.

    Raises:
        OSError: if the model's files cannot be read.
    """
    return Lock(
        versions=library_versions(),
        model=ModelLock(source=model.source, revision=model.revision, fingerprint=model_fingerprint(model.folder)),
        data=dict(data_fingerprints),
        template=template_fingerprint,
        tokenizer=_sha256(model.folder / "tokenizer.json"),
        hardware=current_hardware(),
        seed=config.training.seed,
        platform=platform.platform(),
    )


def write_lock(path: Path, lock: Lock) -> None:
    """Write the lock; a reader sees the old file or the new one.

    Raises:
        OSError: if the file cannot be written.
    """
    write_atomic(path, json.dumps(lock.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n")


def read_lock(path: Path) -> Lock | None:
    """The lock in ``path``; None if there is none or it is damaged. Unknown fields are left out."""
    try:
        return Lock.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def library_versions() -> dict[str, str]:
    """Versions of Python, of this program and of the libraries that are installed, by name."""
    versions = {"python": platform.python_version(), "qlora-tui": __version__}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def model_fingerprint(folder: Path) -> str:
    """SHA-256 that tells the model in ``folder`` from others without reading all of it.

    It covers ``config.json`` and, of each safetensors file, name, size, header and 64 evenly spread pieces of 4 KiB. A
    retrained copy differs in it; a change of a few single weights may not.

    Raises:
        OSError: if a file cannot be read.
    """
    digest = hashlib.sha256()
    digest.update((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"\0{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            length = min(int.from_bytes(file.read(8), "little"), size, _MOST_HEADER_BYTES)
            digest.update(file.read(length))
            for sample in range(_SAMPLES):
                file.seek(8 + length + max(0, size - 8 - length - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    """SHA-256 of a file's bytes; empty if there is no such file."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def current_hardware() -> HardwareLock:
    """The device that this process computes on; what the system does not tell stays empty."""
    gpu = capability = driver = None
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_name(0)
        capability = ".".join(map(str, torch.cuda.get_device_capability(0)))
        driver = _driver_version()
    return HardwareLock(
        gpu=gpu,
        capability=capability,
        driver=driver,
        cpu=_cpu_name(),
        cores=psutil.cpu_count(logical=False) or psutil.cpu_count(),
        memory=psutil.virtual_memory().total,
    )


def _driver_version() -> str | None:
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            version = pynvml.nvmlSystemGetDriverVersion()
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
    return version.decode() if isinstance(version, bytes) else str(version)


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _differences(expected: Lock, actual: Lock) -> Iterator[str]:
    yield from _changed_entries("{}", expected.versions, actual.versions, "not installed")
    yield from _changed("The model source", expected.model.source, actual.model.source)
    yield from _changed("The model revision", expected.model.revision, actual.model.revision)
    yield from _changed("The model fingerprint", expected.model.fingerprint, actual.model.fingerprint)
    yield from _changed_entries("The fingerprint of the {} data", expected.data, actual.data, "none")
    yield from _changed("The fingerprint of the chat template", expected.template, actual.template)
    yield from _changed("The fingerprint of the tokenizer", expected.tokenizer, actual.tokenizer)
    yield from _hardware_differences(expected.hardware, actual.hardware)
    yield from _changed("The seed", expected.seed, actual.seed)
    yield from _changed("The platform", expected.platform, actual.platform)


def _hardware_differences(expected: HardwareLock, actual: HardwareLock) -> Iterator[str]:
    known = expected.cpu and actual.cpu
    if known and (expected.gpu or actual.gpu):
        yield from _changed("The GPU", expected.gpu or "none", actual.gpu or "none")
        yield from _changed("The GPU's compute capability", expected.capability, actual.capability)
        yield from _changed("The GPU driver", expected.driver, actual.driver)
    yield from _changed("The CPU", expected.cpu, actual.cpu)
    yield from _changed("The number of CPU cores", expected.cores, actual.cores)
    # The system keeps a little for itself, and not always the same.
    if expected.memory and actual.memory and abs(expected.memory - actual.memory) > 0.02 * expected.memory:
        yield from _changed("The memory", _gibibytes(expected.memory), _gibibytes(actual.memory))


def _gibibytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _changed_entries(thing: str, old: Mapping[str, str], new: Mapping[str, str], absent: str) -> Iterator[str]:
    """A sentence for each entry that differs. A table that is empty as a whole was not written and says nothing."""
    if old and new:
        for name in sorted(old.keys() | new.keys()):
            yield from _changed(thing.format(name), old.get(name, absent), new.get(name, absent))


def _changed(thing: str, old: str | int | None, new: str | int | None) -> Iterator[str]:
    """The sentence, if both are known and differ."""
    if old in (None, "") or new in (None, "") or old == new:
        return
    yield f"{one_line(thing)} was {_shown(old)} and is now {_shown(new)}."


def _shown(value: str | int | None) -> str:
    text = str(value)
    is_digest = len(text) in (40, 64) and not set(text) - set("0123456789abcdef")
    return text[:12] if is_digest else one_line(text, 120)
