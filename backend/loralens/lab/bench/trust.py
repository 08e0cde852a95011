"""When a run should not be believed, said beside its numbers."""

from __future__ import annotations

from typing import Any

from loralens.lab.bench.schema import Remark
from loralens.lab.device import Device, clocks, load_average
from loralens.lab.timing import MIN_ROUNDS, Timings, quantile

CONTENTION = 1.1
NOISE_CENTRE = 0.03
NOISE_SPREAD = 0.10
"""Assumptions: a noise floor wider than this hides the few per cent in which LoRA's forms differ."""


def remarks(device: Device, timings: Timings, noise: str) -> list[Remark]:
    """What was seen during a point that makes its ratios doubtful."""
    found = []
    contention = timings.contention()
    if device.kind == "cpu" and device.threads == 1 and contention is not None and contention > CONTENTION:
        found.append(_contention(contention))
    if device.kind == "cpu" and device.threads > 1:
        load = load_average()
        if load is not None and load > device.threads + 0.5:
            text = f"wall clock on a busy machine (load average {load}): times contain the turns of others"
            found.append(Remark(code="busy", values={"load": load}, text=text))
    ratios = timings.ratios(noise)
    if ratios:
        centre, low, high = (quantile(ratios, share) for share in (0.5, 0.25, 0.75))
        if abs(centre - 1) > NOISE_CENTRE or high - low > NOISE_SPREAD:
            found.append(_noisy(centre, low, high))
    if timings.rounds < 2 * MIN_ROUNDS:
        text = f"only {timings.rounds} rounds fitted into the time; give it more seconds for firm quartiles"
        found.append(Remark(code="few_rounds", values={"rounds": timings.rounds}, text=text))
    if device.kind == "cuda":
        found += _gpu(clocks(device.torch.index or 0))
    return found


def _contention(ratio: float) -> Remark:
    text = (
        f"other processes took the processor: wall time was {ratio:.2f} × CPU time; CPU time leaves their turns out, "
        "not their use of caches and memory"
    )
    return Remark(code="contention", values={"ratio": ratio}, text=text)


def _noisy(centre: float, low: float, high: float) -> Remark:
    text = (
        f"noisy: the second copy of the same dense call came out at {centre:.3f} (quartiles {low:.3f} to {high:.3f}); "
        "smaller differences are not resolved"
    )
    return Remark(code="noisy", values={"median": centre, "q1": low, "q3": high}, text=text)


def _gpu(state: dict[str, Any] | None) -> list[Remark]:
    if state is None:
        text = "clocks and throttling are unknown: the NVIDIA management library cannot be asked"
        return [Remark(code="clocks_unknown", text=text)]
    found = [
        Remark(code="throttled", values={"cause": name}, text=f"the GPU was slowed down: {name}")
        for name in state["throttle"]
    ]
    if others := state["other_processes"]:
        found.append(Remark(code="shared_gpu", values={"count": others}, text=f"{others} other processes use this GPU"))
    return found
