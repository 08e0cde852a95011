"""When a run should not be believed, said beside its numbers."""

from __future__ import annotations

from typing import Any

from loralens.lab.device import Device, clocks, load_average
from loralens.lab.timing import MIN_ROUNDS, Timings, quantile

CONTENTION = 1.1
NOISE_CENTRE = 0.03
NOISE_SPREAD = 0.10
"""Assumptions: a noise floor wider than this hides the few per cent in which LoRA's forms differ."""


def warnings(device: Device, timings: Timings, noise: str) -> list[str]:
    """What was seen during a point that makes its ratios doubtful."""
    found = []
    contention = timings.contention()
    if device.kind == "cpu" and device.threads == 1 and contention is not None and contention > CONTENTION:
        found.append(
            f"other processes took the processor: wall time was {contention:.2f} × CPU time; CPU time leaves their "
            "turns out, not their use of caches and memory"
        )
    if device.kind == "cpu" and device.threads > 1:
        load = load_average()
        if load is not None and load > device.threads + 0.5:
            found.append(f"wall clock on a busy machine (load average {load}): times contain the turns of others")
    ratios = timings.ratios(noise)
    if ratios:
        centre, spread = quantile(ratios, 0.5), quantile(ratios, 0.75) - quantile(ratios, 0.25)
        if abs(centre - 1) > NOISE_CENTRE or spread > NOISE_SPREAD:
            found.append(
                f"noisy: the second copy of the same dense call came out at {centre:.3f} (quartiles "
                f"{quantile(ratios, 0.25):.3f} to {quantile(ratios, 0.75):.3f}); smaller differences are not resolved"
            )
    if timings.rounds < 2 * MIN_ROUNDS:
        found.append(f"only {timings.rounds} rounds fitted into the time; give it more seconds for firm quartiles")
    if device.kind == "cuda":
        found += _gpu(clocks(device.torch.index or 0))
    return found


def _gpu(state: dict[str, Any] | None) -> list[str]:
    if state is None:
        return ["clocks and throttling are unknown: the NVIDIA management library cannot be asked"]
    found = [f"the GPU was slowed down: {name}" for name in state["throttle"]]
    if state["other_processes"]:
        found.append(f"{state['other_processes']} other processes use this GPU")
    return found
