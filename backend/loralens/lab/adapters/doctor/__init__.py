"""The doctor: does an adapter work, with this base and that engine, and if not, why and what to do.

    diagnose(Path("my-adapter"), base_of("llama-3.1-8b"), "vllm")

Reads safetensors alone, a module at a time, and writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loralens.lab.adapters.answers import DiagnosisAnswer, Verdict
from loralens.lab.adapters.doctor import engines, numbers, size
from loralens.lab.adapters.doctor.base import Base
from loralens.lab.adapters.doctor.finding import Finding, ordered
from loralens.lab.adapters.doctor.fit import fit
from loralens.lab.adapters.doctor.packed import MergeError, merge_errors
from loralens.lab.adapters.doctor.packed import judge as judge_merging
from loralens.lab.adapters.doctor.patient import open_patient
from loralens.lab.adapters.stream import Weights


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that was found, the gravest first; `healthy` where nothing is worse than advice."""

    verdict: Verdict
    modules: int
    base: str | None
    engine: str | None
    findings: list[Finding]
    merging: list[MergeError]

    def to_dict(self) -> DiagnosisAnswer:
        """The diagnosis as it is printed and sent."""
        return {
            "verdict": self.verdict,
            "modules": self.modules,
            "base": self.base,
            "engine": self.engine,
            "findings": [finding.to_dict() for finding in self.findings],
            "merging": [error.to_dict() for error in self.merging],
        }


def diagnose(
    folder: Path,
    base: Base | None = None,
    engine: str | None = None,
    *,
    called: str | None = None,
    packed: Weights | None = None,
) -> Diagnosis:
    """Look at an adapter's folder; with a base, whether it fits; with an engine, what that refuses.

    `called` is what repairs call the folder in commands, its own path by default. `packed` are the weights
    of a base that was held in NF4: then what merging costs is measured, module by module.

    Raises: `NotFound` where there is no such folder, `InvalidInput` for an engine not known here.
    """
    patient = open_patient(folder, called)
    found = list(patient.findings)
    if base is not None:
        found += fit(patient, base)
    if engine is not None:
        found += engines.judge(patient, base, engine)
    measured = numbers.measure(patient)
    merging = [] if packed is None else merge_errors(patient, packed)
    found += [*numbers.judge(patient, measured), *size.advise(patient, measured), *judge_merging(merging)]
    findings = ordered(found)
    gravest = findings[0].severity if findings else "advice"
    verdict: Verdict = "broken" if gravest == "fault" else "doubtful" if gravest == "warning" else "healthy"
    return Diagnosis(verdict, len(patient.pairs), None if base is None else base.name, engine, findings, merging)
