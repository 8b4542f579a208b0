"""Learning rates as functions of the epoch (a float: epoch plus the share of it that is done)."""

import math
from collections.abc import Callable, Sequence

Schedule = Callable[[float], float]


def steps(lr: float, at: Sequence[float], factor: float = 0.1) -> Schedule:
    """``lr``, multiplied by ``factor`` at every epoch of ``at``."""
    return lambda epoch: lr * factor ** sum(epoch >= border for border in at)


def cosine(lr: float, epochs: float, start: float = 0) -> Schedule:
    """Half a cosine from ``lr`` at epoch ``start`` down to 0 at ``epochs``."""
    if not epochs > start:
        raise ValueError(f"a cosine to epoch {epochs} cannot start at {start}; it must start earlier")

    def at(epoch: float) -> float:
        share = min(max((epoch - start) / (epochs - start), 0.0), 1.0)
        return 0.5 * lr * (1 + math.cos(math.pi * share))

    return at


def with_warmup(schedule: Schedule, epochs: float) -> Schedule:
    """Rise linearly from 0 over the first ``epochs``, then follow ``schedule``."""
    return lambda epoch: schedule(epoch) * min(1.0, epoch / epochs) if epochs else schedule(epoch)


def warm_cosine(lr: float, epochs: int) -> Schedule:
    """One rate for each epoch, as is usual for detection and segmentation: up in 3 epochs, down, and the last 10 at the least.

    It rises from a tenth of ``lr`` like a square, and falls like half a cosine to a hundredth.
    """
    rise, rest, least = min(max(0.05 * epochs, 1), 3), min(max(0.05 * epochs, 1), 15), 0.01 * lr

    def at(epoch: float) -> float:
        epoch = math.floor(epoch)
        if epoch <= rise:
            return 0.9 * lr * (epoch / rise) ** 2 + 0.1 * lr
        if epoch >= epochs - rest:
            return least
        return least + 0.5 * (lr - least) * (1 + math.cos(math.pi * (epoch - rise) / (epochs - rise - rest)))

    return at
