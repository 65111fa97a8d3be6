"""Step 1: what this machine is, what is wrong with it, and what the run is planned for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import get_current_worker

from qlora_tui.checks import Finding
from qlora_tui.gpus import Gpu
from qlora_tui.hardware import Hardware
from qlora_tui.memory.device import Device
from qlora_tui.text import one_line
from qlora_tui.tui.devices import precision
from qlora_tui.tui.screens.cards import CardScreen
from qlora_tui.tui.screens.pane import StepPane
from qlora_tui.tui.view import View
from qlora_tui.tui.widgets.choices import Choices
from qlora_tui.tui.widgets.helped import Help
from qlora_tui.tui.widgets.words import Words
from qlora_tui.tui.words import gib

_MARKS = {"ok": ("✓", "$success"), "warn": ("!", "$warning"), "fail": ("✗", "$error"), "skipped": ("–", "dim")}
_HELP = Help(
    "Where to train",
    "Enter chooses the device that the estimate and the run are for.",
    "Free memory is what the driver says now, not what the card's label says. "
    "A card that is not here can be planned for; such a recipe can be saved but not started on this machine.",
)


class HardwareStep(StepPane):
    """Devices to choose from, facts on the chosen one, findings with their fixes."""

    NUMBER = 1
    TITLE = "Hardware"
    ABOUT = "What this machine can train, and what stands in the way."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "plan", "Other card", id="hardware.plan", tooltip="Plan for a card that is not in this machine"),
        Binding(
            "d", "check", "Check", id="hardware.check", tooltip="Check the installation, with a real 4-bit product"
        ),
    ]

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._findings: list[Finding] | None = None
        self._checking = False
        self._drawn: object = None

    def compose(self) -> ComposeResult:
        yield Static("Where to train", classes="section", markup=False)
        yield Choices(id="devices", help=_HELP)
        yield Words(id="device-facts")
        yield Static("This machine", classes="section", markup=False)
        yield Words(id="machine")
        yield Static("Checks", classes="section", id="checks-title", markup=False)
        yield Words(id="findings")

    def entered(self) -> None:
        if self._findings is None and not self._checking and self.view.hardware is not None:
            self.action_check()

    def draw(self) -> None:
        hardware, device = self.view.hardware, self.view.device
        self._draw_devices(hardware)
        if device is not None:
            self.query_one("#device-facts", Words).say(Content("\n").join(_facts(hardware, device)))
        if hardware is not None:
            self.query_one("#machine", Words).say(Content("\n").join(_machine(hardware)))
            if self.is_on_screen and self._findings is None and not self._checking:
                self.action_check()
        self._draw_findings()

    def _draw_devices(self, hardware: Hardware | None) -> None:
        options, chosen = list(self._devices(hardware)), self._chosen_id()
        drawn = [(option.id, str(option.prompt)) for option in options]
        if drawn == self._drawn:
            return
        self._drawn = drawn
        devices = self.query_one("#devices", Choices)
        devices.set_options(options)
        ids = [option.id for option in options]
        devices.highlighted = ids.index(chosen) if chosen in ids else 0

    def _chosen_id(self) -> str:
        answers, hardware = self.view.answers, self.view.hardware
        if answers.card is not None:
            return "plan"
        return f"gpu-{answers.gpu}" if hardware is not None and hardware.gpus else "cpu"

    def _devices(self, hardware: Hardware | None) -> Iterator[Option]:
        chosen = self._chosen_id()
        if hardware is None:
            yield Option(Content.styled("  Looking at this machine …", "dim"), id="none", disabled=True)
        else:
            for gpu in hardware.gpus:
                memory = gpu.memory
                room = f"{gib(memory.free)} free of {gib(memory.total)}" if memory else "memory unknown"
                yield _device(f"gpu-{gpu.index}", f"GPU {gpu.index}", gpu.name, room, chosen)
            if not hardware.gpus:
                room = f"{gib(hardware.memory.available)} of RAM free"
                yield _device("cpu", "CPU", hardware.cpu.name, f"{room}; small models only", chosen)
        card = self.view.answers.card
        what = f"{card}, not in this machine" if card else "choose from a table"
        yield _device("plan", "Other", "Plan for another card" if not card else "Planned", what, chosen)

    def _draw_findings(self) -> None:
        text = self.query_one("#findings", Words)
        if self._findings is None:
            words = "Checking the installation with a real 4-bit product …" if self._checking else "Press d to check."
            text.say(Content.styled(words, "dim"))
        else:
            text.say(Content("\n").join(_finding_lines(self._findings)))

    # Choosing

    @on(OptionList.OptionSelected, "#devices")
    def _device_chosen(self, event: OptionList.OptionSelected) -> None:
        answers = self.view.answers
        if event.option_id == "plan":
            self.action_plan()
        elif event.option_id == "cpu":
            self.application.change(replace(answers, card=None))
        elif event.option_id is not None:
            self.application.change(replace(answers, card=None, gpu=int(event.option_id.removeprefix("gpu-"))))

    @work(group="question")
    async def action_plan(self) -> None:
        card = await self.app.push_screen_wait(CardScreen())
        if card is not None:
            self.application.change(replace(self.application.answers, card=card))

    # Checking

    def action_check(self) -> None:
        if not self._checking and self.view.hardware is not None:
            self._checking, self._findings = True, None
            self._draw_findings()
            self._examine(self.view.hardware)

    @work(thread=True, exclusive=True, group="doctor", exit_on_error=False)
    def _examine(self, hardware: Hardware) -> None:
        found = self.application.services.findings(hardware)
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._take_findings, found)

    def _take_findings(self, found: list[Finding]) -> None:
        self._findings, self._checking = found, False
        if self.is_attached:
            self._draw_findings()


def _device(identity: str, kind: str, name: str, room: str, chosen: str) -> Option:
    mark = Content.styled("● ", "bold $primary") if identity == chosen else Content.styled("○ ", "dim")
    line = mark.append(Content.styled(f"{kind:<6} ", "bold")).append(Content(f"{one_line(name, 40):<36} "))
    return Option(line.append(Content.styled(room, "dim")), id=identity)


def _pair(label: str, value: str) -> Content:
    return Content.styled(f"  {label:<11}", "dim").append(Content(value))


def _facts(hardware: Hardware | None, device: Device) -> Iterator[Content]:
    """What matters of the device that is chosen."""
    if device.planned:
        capability = (
            "" if device.capability is None else f"; compute capability {'.'.join(map(str, device.capability))}"
        )
        yield _pair("memory", f"{gib(device.free)} of {gib(device.total)} free on an idle card{capability}")
        yield _pair("precision", precision(device))
        return
    if device.kind == "cpu" or hardware is None:
        why = hardware.no_gpu if hardware is not None else None
        yield _pair("GPU", why or "There is none.")
        yield _pair("precision", f"{precision(device)}: exact, and fastest on a processor")
        return
    gpu = next((each for each in hardware.gpus if each.name == device.name), hardware.gpus[0])
    yield _pair("free now", f"{gib(device.free)} of {gib(device.total)}")
    yield _pair("held by", _holders(gpu))
    yield _pair("precision", f"{precision(device)}. {gpu.bf16_reason}")
    cuda = "" if hardware.cuda is None else f", CUDA up to {'.'.join(map(str, hardware.cuda))}"
    yield _pair("driver", f"{hardware.driver or 'unknown'}{cuda}")


def _holders(gpu: Gpu) -> str:
    if gpu.processes is None:
        return "the driver does not tell"
    if not gpu.processes:
        return "nobody"
    shown = [
        f"{one_line(each.name or 'another process', 30)} ({each.pid})"
        + ("" if each.memory is None else f" {gib(each.memory)}")
        for each in gpu.processes[:4]
    ]
    return ", ".join(shown) + (f" and {len(gpu.processes) - 4} more" if len(gpu.processes) > 4 else "")


def _machine(hardware: Hardware) -> Iterator[Content]:
    cpu, memory = hardware.cpu, hardware.memory
    cores = f"{cpu.usable or cpu.threads or '?'} cores"
    yield _pair("CPU", f"{cpu.name}, {cores}")
    limit = " (limit of this container)" if memory.limit is not None else ""
    yield _pair("RAM", f"{gib(memory.available)} free of {gib(memory.total)}{limit}")
    for disk in hardware.disks:
        room = "unknown" if disk.free is None else f"{gib(disk.free)} free"
        yield _pair(
            disk.purpose, f"{room} in {one_line(str(disk.path), 120)}" + ("" if disk.writable else ", not writable")
        )


def _finding_lines(findings: list[Finding]) -> Iterator[Content]:
    """What is wrong first, then what is well."""
    order = {"fail": 0, "warn": 1, "ok": 2, "skipped": 3}
    for each in sorted(findings, key=lambda finding: order[finding.status]):
        mark, colour = _MARKS[each.status]
        yield Content.styled(f"  {mark} ", colour).append(Content(f"{each.check:<14} {one_line(each.detail, 300)}"))
        if each.fix:
            yield Content.styled(f"    {'':<14} → {one_line(each.fix, 300)}", "$primary")
