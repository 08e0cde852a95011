"""The doctor: does an adapter work, with this base and that engine, and if not, why and what to do.

    diagnose(Path("my-adapter"), base_of("llama-3.1-8b"), "vllm")

Reads safetensors alone, a module at a time, and writes nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from loralens.lab.adapters.doctor import engines, numbers, size
from loralens.lab.adapters.doctor.base import Base
from loralens.lab.adapters.doctor.finding import Finding, ordered
from loralens.lab.adapters.doctor.fit import fit
from loralens.lab.adapters.doctor.patient import open_patient

Verdict = Literal["healthy", "doubtful", "broken"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that was found, the gravest first; `healthy` where nothing is worse than advice."""

    verdict: Verdict
    modules: int
    base: str | None
    engine: str | None
    findings: list[Finding]

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as JSON-able values."""
        return asdict(self)


def diagnose(folder: Path, base: Base | None = None, engine: str | None = None) -> Diagnosis:
    """Look at an adapter's folder; with a base, whether it fits; with an engine, what that refuses.

    Raises: `NotFound` where there is no such folder, `InvalidInput` for an engine not known here.
    """
    patient = open_patient(folder)
    found = list(patient.findings)
    if base is not None:
        found += fit(patient, base)
    if engine is not None:
        found += engines.judge(patient, base, engine)
    measured = numbers.measure(patient)
    found += [*numbers.judge(patient, measured), *size.advise(patient, measured)]
    findings = ordered(found)
    gravest = findings[0].severity if findings else "advice"
    verdict: Verdict = "broken" if gravest == "fault" else "doubtful" if gravest == "warning" else "healthy"
    return Diagnosis(verdict, len(patient.pairs), None if base is None else base.name, engine, findings)
