"""Fields of the recipe: a label, an editor, and the one-line reason of its default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.events import Key
from textual.message import Message
from textual.widgets import Input, Static

from qlora_tui.config_schema import description as setting_description
from qlora_tui.text import one_line
from qlora_tui.tui.widgets.cycle import Cycle
from qlora_tui.tui.widgets.helped import Help
from qlora_tui.tui.widgets.line_input import LineInput
from qlora_tui.tui.widgets.words import Words


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field of the recipe; with ``options`` it is chosen, else typed."""

    path: str
    label: str
    options: Sequence[str] = ()
    detail: str = ""
    """What can be typed, for the help."""

    @property
    def id(self) -> str:
        return "field-" + self.path.replace(".", "-").replace("_", "-")


def description(path: str) -> str:
    """The schema's own words on a field: what it does and why its default is what it is."""
    return setting_description(tuple(path.split(".")))


def reason(path: str) -> str:
    """Why a field's default is what it is: the schema's words after the sentence on what the field does."""
    _, _, why = description(path).partition(". ")
    return why or description(path)


class FieldInput(LineInput):
    """A one-line editor that leaves ``?`` to the help where no text would hold one."""

    def __init__(self, *, asks: bool, id: str) -> None:  # noqa: A002
        super().__init__(compact=True, select_on_focus=True, id=id)
        self._asks = asks

    async def _on_key(self, event: Key) -> None:
        if self._asks and event.character == "?":
            # Else the editor of the base class would take it.
            event.stop()
            event.prevent_default()
            await self.run_action("app.explain")

    def check_consume_key(self, key: str, character: str | None) -> bool:
        return not (self._asks and character == "?") and super().check_consume_key(key, character)


class FieldRow(Horizontal):
    """A field with its reason."""

    @dataclass
    class Changed(Message):
        """Something was typed or chosen."""

        path: str
        text: str

    def __init__(self, spec: FieldSpec) -> None:
        super().__init__(classes="field", id=spec.id + "-row")
        self.spec = spec
        self._reason = ""
        self._problem = ""
        self._typed_texts: set[str] = set()
        """What was shown last, and what was typed since and has not come back yet."""

    def compose(self) -> ComposeResult:
        yield Static(self.spec.label, classes="field-label", markup=False)
        if self.spec.options:
            yield Cycle(self.spec.options, self.spec.options[0], id=self.spec.id)
        else:
            yield FieldInput(asks=True, id=self.spec.id)
        yield Words(classes="field-reason")

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self._typed_texts.add(event.value)
        self.post_message(self.Changed(self.spec.path, event.value))

    @on(Cycle.Changed)
    def _chosen(self, event: Cycle.Changed) -> None:
        event.stop()
        self.post_message(self.Changed(self.spec.path, event.value))

    def show(self, text: str, reason: str, problem: str = "") -> None:
        """Show a value with its reason, or what is wrong with it."""
        if self.spec.options:
            self.query_one(Cycle).show(text)
        else:
            self._show_text(self.query_one(Input), text)
        if (reason, problem) != (self._reason, self._problem):
            self._reason, self._problem = reason, problem
            self.set_class(bool(problem), "-invalid")
            note = self.query_one(".field-reason", Words)
            note.say(Content.styled(f"✗ {problem}", "$error") if problem else Content(one_line(reason)))

    def _show_text(self, editor: Input, text: str) -> None:
        """Show a value, but correct nobody who is typing with an earlier text or another spelling."""
        if editor.value == text or (editor.has_focus and self._same(editor.value, text)):
            self._typed_texts = {text}
        elif not (editor.has_focus and text in self._typed_texts):
            self._typed_texts = {text}
            with self.prevent(Input.Changed):
                editor.value = text

    @staticmethod
    def _same(typed: str, text: str) -> bool:
        """Whether two spellings mean one value: who is typing ``2e-`` or ``1.`` must not be corrected."""
        try:
            return float(typed) == float(text)
        except ValueError:
            return typed.strip() == text.strip()

    def field_help(self) -> Help:
        """For the hint and the help key."""
        more = [f"In the file: {self.spec.path}"]
        if self.spec.options:
            more.append("One of: " + ", ".join(self.spec.options) + ". Change it with the arrow keys or a click.")
        elif self.spec.detail:
            more.append(self.spec.detail)
        if self._reason and self._reason not in description(self.spec.path):
            more.append(self._reason)
        return Help(self.spec.label, self._problem or description(self.spec.path), "\n".join(more))
