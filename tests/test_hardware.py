"""The hardware snapshot: whatever the driver fails to tell is absent, and everything else is still there."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil
import pynvml
import pytest
from fake_nvml import GIB, FakeCard, FakeNvml

from qlora_tui import hardware
from qlora_tui.hardware import GpuMemory, GpuSample, Nvml, Sampler, read_memory, snapshot, supports_bf16

LOST = pynvml.NVML_ERROR_GPU_IS_LOST
MISSING_FUNCTION = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
FIELDS = (
    "nvmlSystemGetDriverVersion", "nvmlSystemGetCudaDriverVersion_v2", "nvmlDeviceGetCount", "nvmlDeviceGetName",
    "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetEccMode", "nvmlDeviceGetMigMode", "nvmlShutdown",
    "nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex", "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
)  # fmt: skip


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_a_card_is_read_whole() -> None:
    nvml = FakeNvml(FakeCard(ecc=1, mig=0, computing=[(os.getpid(), GIB)], drawing=[(os.getpid(), 5)]))
    machine = snapshot(nvml)
    (gpu,) = machine.gpus
    assert (machine.driver, machine.cuda, machine.no_gpu) == ("580.65.06", (13, 1), None)
    assert (gpu.index, gpu.name, gpu.uuid, gpu.capability) == (0, "NVIDIA GeForce RTX 3060", "GPU-0000", (8, 6))
    assert gpu.memory == GpuMemory(12 * GIB, 11 * GIB, GIB // 4)
    assert gpu.memory.used == GIB
    assert (gpu.ecc, gpu.mig, gpu.unified, gpu.unread) == (True, False, False, ())
    assert gpu.processes is not None
    (process,) = gpu.processes
    assert (process.pid, process.memory) == (os.getpid(), GIB), "one that computes and draws is told once"
    assert process.name == psutil.Process().name()
    assert nvml.running == 0, "what was started is shut down"


def test_the_machine_itself_is_known() -> None:
    machine = snapshot(FakeNvml())
    assert machine.gpus == ()
    assert machine.no_gpu == "The NVIDIA driver runs but sees no GPU."
    assert machine.cpu.name
    assert machine.cpu.threads
    assert 0 < machine.memory.available <= machine.memory.total
    assert [disk.purpose for disk in machine.disks] == ["runs", "cache", "downloads"]
    assert all(disk.free for disk in machine.disks)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "No NVIDIA driver is installed"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "not loaded"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "differ in version"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "refuses access"),
        (pynvml.NVML_ERROR_UNKNOWN, "does not answer (Unknown Error)"),
        (123456, "does not answer"),
    ],
)
def test_without_nvml_there_is_a_reason(code: int, says: str) -> None:
    machine = snapshot(FakeNvml(FakeCard(), broken={"nvmlInit": code}))
    assert machine.gpus == ()
    assert says in (machine.no_gpu or "")


def test_without_the_bindings_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    machine = snapshot()
    assert machine.gpus == ()
    assert "nvidia-ml-py" in (machine.no_gpu or "")


@pytest.mark.parametrize("code", [LOST, MISSING_FUNCTION, pynvml.NVML_ERROR_NOT_SUPPORTED, 99999])
@pytest.mark.parametrize("name", FIELDS)
def test_any_one_failing_function_costs_only_its_field(name: str, code: int) -> None:
    whole = FakeNvml(FakeCard(mig=1, instances={0: FakeCard(uuid="MIG-0")}))
    broken = FakeNvml(FakeCard(mig=1, instances={0: FakeCard(uuid="MIG-0")}), broken={name: code})
    intact, machine = snapshot(whole), snapshot(broken)
    assert machine.cpu == intact.cpu
    if name in ("nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"):
        assert machine.no_gpu or machine.gpus[0].unread
        return
    (before,), (after,) = intact.gpus, machine.gpus
    same = sum(getattr(before, field) == getattr(after, field) for field in before.__slots__)
    assert same >= len(before.__slots__) - 3, "the field itself, what is derived from it, and the reason"


def test_bindings_that_lack_functions_are_as_good_as_failing_ones() -> None:
    nvml = SimpleNamespace(
        nvmlInit=lambda: None, nvmlDeviceGetCount=lambda: 1, nvmlDeviceGetHandleByIndex=lambda index: index
    )
    machine = snapshot(cast(Nvml, nvml))
    (gpu,) = machine.gpus
    assert (gpu.name, gpu.memory, gpu.processes, machine.driver) == ("GPU", None, None, None)
    assert Sampler(0, cast(Nvml, nvml)).sample() == GpuSample()


def test_what_an_old_driver_does_not_know_is_not_a_failure() -> None:
    card = FakeCard(broken={"nvmlDeviceGetMigMode": MISSING_FUNCTION, "nvmlDeviceGetEccMode": MISSING_FUNCTION})
    assert snapshot(FakeNvml(card)).gpus[0].unread == ()


def test_a_lost_card_hides_no_other() -> None:
    machine = snapshot(FakeNvml(FakeCard(broken={"*": LOST}), FakeCard(uuid="GPU-1")))
    assert [gpu.uuid for gpu in machine.gpus] == [None, "GPU-1"]
    assert machine.gpus[0].unread == (("device", "GPU is lost"),)
    assert machine.gpus[0].memory is None
    assert machine.gpus[0].bf16 is None


def test_a_card_lost_half_way_keeps_what_was_read() -> None:
    later = ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetUUID", "nvmlDeviceGetComputeRunningProcesses")
    card = FakeCard(broken={**dict.fromkeys(later, LOST), "nvmlDeviceGetGraphicsRunningProcesses": LOST})
    (gpu,) = snapshot(FakeNvml(card)).gpus
    assert (gpu.name, gpu.capability, gpu.memory, gpu.processes) == ("NVIDIA GeForce RTX 3060", (8, 6), None, None)
    assert {name for name, _ in gpu.unread} == {"memory", "uuid", "processes"}
    assert all(reason == "GPU is lost" for _, reason in gpu.unread)


def test_an_old_driver_without_the_second_memory_function_still_tells_memory() -> None:
    card = FakeCard(broken={"nvmlDeviceGetMemoryInfo_v2": MISSING_FUNCTION})
    assert snapshot(FakeNvml(card)).gpus[0].memory == GpuMemory(12 * GIB, 11 * GIB, None)


@pytest.mark.parametrize(("total", "free"), [(0, 0), (GIB, 2 * GIB), (GIB, -1)])
def test_memory_that_cannot_be_is_absent(total: int, free: int) -> None:
    (gpu,) = snapshot(FakeNvml(FakeCard(total=total, free=free))).gpus
    assert gpu.memory is None
    assert gpu.unread[0][0] == "memory"


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((6, 1), False), ((7, 5), False), ((8, 0), True), ((8, 9), True), ((10, 0), True), ((12, 0), True), (None, None)],
)
def test_capability_is_compared_as_numbers(capability: tuple[int, int] | None, expected: bool | None) -> None:
    assert supports_bf16(capability) is expected
    if capability is not None:
        (gpu,) = snapshot(FakeNvml(FakeCard(capability=capability))).gpus
        assert gpu.bf16 is expected
        assert ".".join(map(str, capability)) in gpu.bf16_reason


def test_mig_instances_are_listed_with_their_gaps() -> None:
    small = FakeCard(name="NVIDIA A100-SXM4-80GB MIG 1g.10gb", uuid="MIG-3", total=10 * GIB, free=9 * GIB)
    lost = FakeCard(uuid="MIG-5", broken={"nvmlDeviceGetMemoryInfo": LOST})
    (gpu,) = snapshot(FakeNvml(FakeCard(mig=1, instances={3: small, 5: lost}))).gpus
    assert gpu.mig is True
    assert [(part.index, part.uuid) for part in gpu.instances] == [(3, "MIG-3"), (5, "MIG-5")]
    assert gpu.instances[0].memory == GpuMemory(10 * GIB, 9 * GIB, GIB // 4)
    assert gpu.instances[1].memory is None


@pytest.mark.parametrize(("name", "capability"), [("NVIDIA GB10", (12, 1)), ("Orin (nvgpu)", (8, 7))])
def test_unified_memory_is_the_machines(name: str, capability: tuple[int, int]) -> None:
    unsupported = {"nvmlDeviceGetMemoryInfo": pynvml.NVML_ERROR_NOT_SUPPORTED}
    machine = snapshot(FakeNvml(FakeCard(name=name, capability=capability, broken=unsupported)))
    (gpu,) = machine.gpus
    assert gpu.unified is True
    assert gpu.memory == GpuMemory(machine.memory.total, machine.memory.available)
    assert gpu.unread == ()


@pytest.mark.parametrize("name", ["evil\x1b[31m\nGPU\u202e", b"evil\x1b]0;title\x07 \xff\xfe", "x" * 5000, ""])
def test_a_hostile_name_is_made_printable(name: str | bytes) -> None:
    (gpu,) = snapshot(FakeNvml(FakeCard(name=name))).gpus
    assert gpu.name.isprintable()
    assert 0 < len(gpu.name) <= 80


def test_processes_that_cannot_be_named_are_listed_by_size() -> None:
    card = FakeCard(computing=[(4_000_001, None), (4_000_002, 2 * GIB)], drawing=[(4_000_003, 3 * GIB)])
    processes = snapshot(FakeNvml(card)).gpus[0].processes or ()
    assert [(process.pid, process.memory) for process in processes] == [
        (4_000_003, 3 * GIB),
        (4_000_002, 2 * GIB),
        (4_000_001, None),
    ]
    assert {process.name for process in processes} == {None}


def test_a_sample_has_its_units() -> None:
    with Sampler(0, FakeNvml(FakeCard(throttle=0x04 | 0x20 | 0x01))) as sampler:
        assert sampler.sample() == GpuSample(
            utilisation=97,
            memory_used=GIB,
            memory_total=12 * GIB,
            temperature=71,
            power=168.5,
            power_limit=170.0,
            sm_clock=1777,
            throttled=("power limit", "temperature"),
        )


def test_a_sampler_outlives_its_card() -> None:
    nvml = FakeNvml(FakeCard())
    sampler = Sampler(0, nvml)
    assert sampler.sample().utilisation == 97
    nvml.cards[0].broken["*"] = LOST
    assert sampler.sample() == GpuSample()
    sampler.close()
    assert sampler.sample() == GpuSample()
    assert nvml.running == 0


@pytest.mark.parametrize(
    "nvml",
    [FakeNvml(), FakeNvml(broken={"nvmlInit": LOST}), FakeNvml(FakeCard(broken={"*": LOST}))],
    ids=["no card", "no driver", "lost"],
)
def test_a_sampler_without_a_card_is_empty(nvml: FakeNvml) -> None:
    with Sampler(0, nvml) as sampler:
        assert sampler.sample() == GpuSample()


@pytest.mark.parametrize("name", ["nvmlDeviceGetTemperature", "nvmlDeviceGetCurrentClocksEventReasons"])
def test_a_renamed_function_is_asked_by_its_other_name(name: str) -> None:
    with Sampler(0, FakeNvml(FakeCard(broken={name: MISSING_FUNCTION}))) as sampler:
        sample = sampler.sample()
    assert sample.temperature in (71, 72)
    assert sample.throttled == ()


def test_without_control_groups_memory_is_the_machines(tmp_path: Path) -> None:
    assert read_memory(tmp_path).total == psutil.virtual_memory().total
    assert read_memory(tmp_path).limit is None


def test_a_limit_of_version_2_counts_wherever_it_is_set(tmp_path: Path) -> None:
    group(tmp_path / "proc/self", cgroup="0::/pod/container")
    mount = tmp_path / "sys/fs/cgroup"
    group(mount / "pod/container", memory__max="max", memory__current=0)
    stat = "anon 1\ninactive_file 50000000"
    group(mount / "pod", memory__max=400_000_000, memory__current=150_000_000, memory__stat=stat)
    memory = read_memory(tmp_path)
    assert (memory.total, memory.limit) == (400_000_000, 400_000_000)
    assert memory.available == 300_000_000, "pages of cached files can be had"


def test_inside_a_container_the_limit_is_at_the_mount(tmp_path: Path) -> None:
    group(tmp_path / "proc/self", cgroup="0::/not/visible/here")
    group(tmp_path / "sys/fs/cgroup", memory__max=400_000_000, memory__current=390_000_000)
    memory = read_memory(tmp_path)
    assert (memory.total, memory.available) == (400_000_000, 10_000_000)


def test_a_limit_of_version_1_counts_and_its_none_does_not(tmp_path: Path) -> None:
    group(tmp_path / "proc/self", cgroup="5:cpu,cpuacct:/\n4:memory:/box\n0::/")
    mount = tmp_path / "sys/fs/cgroup/memory"
    group(mount, memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=1)
    assert read_memory(tmp_path).limit is None
    group(mount / "box", memory__limit_in_bytes=500_000_000, memory__usage_in_bytes=600_000_000)
    memory = read_memory(tmp_path)
    assert (memory.total, memory.available, memory.limit) == (500_000_000, 0, 500_000_000)


@pytest.mark.parametrize("text", ["", "garbage", "0::", "4:memory", "\udcff"])
def test_nonsense_in_the_group_file_is_passed_over(tmp_path: Path, text: str) -> None:
    group(tmp_path / "proc/self")
    (tmp_path / "proc/self/cgroup").write_bytes(text.encode("utf-8", errors="surrogateescape"))
    assert read_memory(tmp_path).limit is None


def test_processor_flags_of_interest(tmp_path: Path) -> None:
    group(
        tmp_path / "proc", cpuinfo="model name\t: Fast\x1b[1m CPU\nflags\t: fpu avx2 avx512_bf16\nmodel name\t: Other"
    )
    cpu = hardware.read_cpu(tmp_path)
    assert (cpu.name, cpu.flags) == ("Fast CPU", ("avx2", "avx512_bf16"))


def test_a_folder_that_does_not_exist_yet_is_on_its_parents_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QLORA_TUI_RUNS", str(tmp_path / "a/b/runs"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub-home"))
    runs, _, downloads = hardware.read_disks()
    assert (runs.path, runs.writable) == (tmp_path / "a/b/runs", True)
    assert runs.free
    assert downloads.path == tmp_path / "hub-home/hub"
    (tmp_path / "a").write_text("a file in the way")
    assert not hardware.read_disks()[0].writable
