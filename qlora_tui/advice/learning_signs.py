"""Whether a run learns as it should. Each check names one trouble with its numbers, or none.

Thresholds are judgement, chosen so that noise of small batches does not trip them; every message carries the numbers,
so that a person can judge for themselves.
"""

from __future__ import annotations

import math
import statistics

from qlora_tui.advice.playbook import learning_rate
from qlora_tui.advice.window import Finding, Point, Window, finite, spread


def not_a_number(window: Window) -> Finding | None:
    """A loss, or most gradients, that are not finite."""
    lower = f"Lower training.learning_rate to about {_short(window.peak_rate / 3)} and resume"
    if window.bad_eval == window.step:
        return Finding("nan", f"The held-out loss of step {window.step:,} is not a number.", f"{lower}.")
    points = window.last(20)
    if points and points[-1].loss is None:
        good = [point for point in window.points if point.loss is not None]
        before = f" The last number was {good[-1].loss:.3g} at step {good[-1].step:,}." if good else ""
        change = f"{lower}; if it comes back at the same step, look at the rows of that step."
        return Finding("nan", f"The loss of step {window.step:,} is not a number.{before}", change)
    lost = sum(point.grad_norm is None for point in points)
    if len(points) == 20 and lost >= 8 and any(point.grad_norm is not None for point in window.points):
        message = f"The gradients of {lost} of the last 20 steps were not numbers, so those steps taught nothing."
        return Finding("nan", message, f"{lower}, or compute in bfloat16 where the GPU has it.")
    return None


def divergence(window: Window) -> Finding | None:
    """A loss that runs away from what it had reached, or above where the base stood."""
    recent = window.losses(10)
    if len(recent) < 10:
        return None
    now = statistics.fmean(recent)
    change = (
        f"Stop, and start again with training.learning_rate {_short(window.peak_rate / 3)}; the best adapter stays."
    )
    if window.lowest is not None and window.step - window.lowest_step >= 10:
        high = now - window.lowest > max(0.7, 0.3 * window.lowest)
        if high and now > window.lowest * math.exp(6 * window.noise() / len(recent) ** 0.5):
            message = (
                f"The training loss rose from {window.lowest:.3g} (mean of 10 steps up to step {window.lowest_step:,}) "
                f"to {now:.3g}."
            )
            return Finding("divergence", message, change)
    evals = window.evals[-2:]
    if window.before is not None and len(evals) == 2 and all(each.loss > window.before + 0.1 for each in evals):
        last = evals[-1]
        message = f"The held-out loss is {last.loss:.3g} after {last.step:,} steps; the base had {window.before:.3g}."
        return Finding("divergence", message, change)
    return None


def rate_too_high(window: Window) -> Finding | None:
    """Learning that jumps: worse than at the start, or one spike after the other."""
    if divergence(window) is not None or window.warmed_up < 5:
        return None
    recent = window.losses(15)
    start = window.first_losses[:5]
    suggestion = _suggested(window)
    lower = f"Lower training.learning_rate to {_short(min(suggestion or 1.0, window.peak_rate / 2))}."
    if 10 <= window.step <= 60 and len(recent) >= 10 and len(start) >= 5:
        first, now = statistics.median(start), statistics.median(recent)
        usual = 1.1 * first + 0.1
        if now > usual and now > usual * math.exp(2 * window.noise()):
            message = (
                f"The loss is {now:.3g} (median of {len(recent)} steps) at a learning rate of "
                f"{_short(window.peak_rate)}; it began at {first:.3g}."
            )
            return Finding("learning_rate_high", message, lower)
    return _spikes(window, lower)


def _spikes(window: Window, change: str) -> Finding | None:
    points = [point for point in window.last(50) if point.loss is not None and point.grad_norm is not None]
    if len(points) < 50:
        return None
    loss = statistics.median(finite(point.loss for point in points))
    norm = statistics.median(finite(point.grad_norm for point in points))
    spikes = [point for point in points if _is_spike(point, loss, norm)]
    if len(spikes) < 4:
        return None
    worst = max(finite(point.loss for point in spikes))
    message = (
        f"In {len(spikes)} of the last 50 steps the loss jumped above twice its median of {loss:.3g}, up to "
        f"{worst:.3g}, while the gradient was over three times its usual {norm:.3g}."
    )
    return Finding("learning_rate_high", message, change)


def _is_spike(point: Point, loss: float, norm: float) -> bool:
    return (point.loss or 0.0) > 2 * loss + 0.5 and (point.grad_norm or 0.0) > 3 * norm


def rate_too_low(window: Window) -> Finding | None:
    """A loss that hardly falls at a rate far below what such models learn best at."""
    suggestion = _suggested(window)
    recent = window.losses(20)
    enough = window.warmed_up >= 40 and len(recent) == 20 and len(window.first_losses) == 10
    if suggestion is None or not enough or window.peak_rate > suggestion / 4:
        return None
    first, now = statistics.fmean(window.first_losses), statistics.fmean(recent)
    if now < 0.95 * first or now > 1.05 * first:
        return None
    message = (
        f"After {window.step:,} steps the loss is {now:.3g}; it began at {first:.3g}. The learning rate is "
        f"{_short(window.peak_rate)}."
    )
    change = f"Raise training.learning_rate towards {_short(suggestion)}, where models of this size learn best."
    return Finding("learning_rate_low", message, change)


def plateau(window: Window) -> Finding | None:
    """A loss that stands still although the learning rate is still high and much of the run is to come."""
    if not window.points or not window.total_steps or window.step > 0.85 * window.total_steps:
        return None
    rate = window.points[-1].learning_rate
    if not 0 < 0.3 * window.peak_rate <= rate or rate_too_low(window) is not None:
        return None
    change = "Stop and save if this is good enough; if not, more or other rows, or a higher rank, will help more."
    at = f"while the learning rate is still {rate / window.peak_rate:.0%} of its peak"
    evals = window.evals[-4:]
    if len(evals) == 4 and evals[-1].step == window.step:
        losses = [each.loss for each in evals]
        if max(losses) - min(losses) < 0.005 * losses[0] and min(losses) > 0:
            message = f"The last 4 evaluations lie between {min(losses):.4g} and {max(losses):.4g}, {at}."
            return Finding("plateau", message, change)
    return None if len(evals) == 4 else _flat_training(window, at, change)


def _flat_training(window: Window, at: str, change: str) -> Finding | None:
    size = min(200, max(100, window.total_steps // 5))
    losses = window.losses(size)
    if window.warmed_up < size or len(losses) < size:
        return None
    half = size // 2
    early, late = losses[:half], losses[half:]
    first, second = statistics.fmean(early), statistics.fmean(late)
    error = math.hypot(spread(early), spread(late)) / half**0.5
    if second <= 0 or error > 0.01 * second or abs(first - second) > 0.005 * second + error:
        return None
    message = f"The loss moved from {first:.4g} to {second:.4g} over the last {size} steps, {at}."
    return Finding("plateau", message, change)


def overfitting(window: Window) -> Finding | None:
    """Held-out loss that rises while the training loss falls."""
    if len(window.evals) < 3 or window.evals[-1].step != window.step:
        return None
    best = min(window.evals, key=lambda each: each.loss)
    previous, last = window.evals[-2:]
    rising = best.loss + 0.005 < previous.loss < last.loss and last.loss > 1.02 * best.loss
    if best.training_loss is None or last.training_loss is None or not rising:
        return None
    if last.training_loss > 0.98 * best.training_loss:
        return None
    message = (
        f"The held-out loss rose from {best.loss:.4g} (step {best.step:,}) to {last.loss:.4g} while the training loss "
        f"fell from {best.training_loss:.4g} to {last.training_loss:.4g}."
    )
    change = (
        f"The adapter of step {best.step:,} is kept. Stop here; next time fewer epochs, adapter.dropout 0.05, a lower "
        "rank, or more rows."
    )
    return Finding("overfitting", message, change)


def _suggested(window: Window) -> float | None:
    return None if window.parameters is None else learning_rate(window.parameters, 5000)[0]


def _short(value: float) -> str:
    return f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e")


CHECKS = (not_a_number, divergence, rate_too_high, rate_too_low, plateau, overfitting)
