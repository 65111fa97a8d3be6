"""Which tensors are alive when, on a tape."""

from __future__ import annotations

from qlora_tui.memory import kernel_operations as kernels
from qlora_tui.memory import operations as ops
from qlora_tui.memory.tape import Tape, Tensor

HIDDEN, WIDE, RANK = 10, 40, 1
SIZES = {"hidden": HIDDEN, "wide": WIDE, "rank": RANK, "A": 0, "B": 0}


def live(tape: Tape) -> list[int]:
    """Bytes a token after each event."""
    sizes = [round(SIZES[size.width] * size.bytes) for size in tape.sizes]
    found, now = [], 0
    for event in tape.log:
        now += sizes[event] if event >= 0 else -sizes[~event]
        found.append(now)
    return found


def started(tape: Tape) -> Tensor:
    return tape.parameter(tape.new("tokens", "hidden", 2))


def go_back(tape: Tape, output: Tensor) -> None:
    node = output.node
    assert node is not None
    tape.backward(node, tape.like(output))


class TestLife:
    """A tensor lives while something holds it."""

    def test_what_nothing_holds_is_released_at_once(self) -> None:
        tape = Tape()
        hidden = ops.scaled(tape, tape.new("tokens", "hidden", 2))
        assert live(tape) == [20, 40, 20]
        del hidden
        assert live(tape)[-1] == 0

    def test_views_share_their_memory(self) -> None:
        tape = Tape()
        both = ops.parts(tape, tape.new("tokens", "wide", 2), ("hidden", "hidden"))
        assert live(tape) == [80]
        del both[0]
        assert live(tape)[-1] == 80

    def test_what_was_saved_lives_until_its_operation_has_gone_back(self) -> None:
        tape = Tape()
        hidden = started(tape)
        output = ops.activated(tape, ops.scaled(tape, hidden))
        assert live(tape)[-1] == 60
        go_back(tape, output)
        del hidden, output
        assert live(tape)[-1] == 0

    def test_nothing_is_saved_where_no_gradient_is_wanted(self) -> None:
        tape = Tape()
        output = ops.activated(tape, ops.scaled(tape, tape.new("tokens", "hidden", 2)))
        assert live(tape)[-1] == 20
        assert output.node is None


class TestCheckpoints:
    """A checkpoint keeps its input and runs again."""

    @staticmethod
    def program(tape: Tape) -> object:
        def run(hidden: Tensor) -> Tensor:
            wide = kernels.trained_linear(tape, hidden, "wide", "A", 2, kept=False)
            return kernels.trained_linear(tape, ops.activated(tape, wide), "hidden", "B", 2, kept=False)

        return run

    def peak(self, *, checkpointed: bool) -> tuple[int, int]:
        """Bytes a token after the forward pass, and at the peak."""
        tape = Tape()
        hidden = started(tape)
        program = self.program(tape)
        output = tape.checkpoint(program, hidden) if checkpointed else program(hidden)  # type: ignore[arg-type,operator]
        held = live(tape)[-1]
        go_back(tape, output)
        del output, hidden
        assert live(tape)[-1] == 0
        return held, max(live(tape))

    def test_less_is_held(self) -> None:
        assert self.peak(checkpointed=False)[0] == 20 + 80 + 80 + 20
        assert self.peak(checkpointed=True)[0] == 20 + 20

    def test_the_second_run_stops_at_the_last_tensor_that_is_looked_for(self) -> None:
        # Input, output and its gradient; the activation's input and output; what is made of them going back.
        assert self.peak(checkpointed=True)[1] == self.peak(checkpointed=False)[1]


class TestGradients:
    """Gradients that meet, and their dtype."""

    def test_two_ways_back_are_added_into_a_third_tensor(self) -> None:
        tape = Tape()
        hidden = started(tape)
        output = ops.added(tape, ops.scaled(tape, hidden), ops.scaled(tape, hidden))
        before = live(tape)[-1]
        events = len(tape.log)
        go_back(tape, output)
        del output
        assert max(live(tape)[events:]) == before + 20 + 20 + 20

    def test_a_gradient_has_the_dtype_of_what_it_belongs_to(self) -> None:
        tape = Tape()
        hidden = started(tape)
        output = ops.layer_normed(tape, hidden, "rank")
        assert output.bytes == 4
        go_back(tape, output)
        assert hidden.node is not None
        assert [size.bytes for size in tape.sizes][-1] == 2
