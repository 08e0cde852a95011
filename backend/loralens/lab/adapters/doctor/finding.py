"""What the doctor says: one finding for each thing, the gravest first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from loralens.lab.adapters.answers import FindingAnswer, Severity, Stage

SEVERITIES: Final[tuple[Severity, ...]] = ("fault", "warning", "advice")
"""Does not load or computes something else; loads, but is hardly what was meant; works, and could be better."""

STAGES: Final[tuple[Stage, ...]] = ("files", "format", "config", "structure", "fit", "numbers", "engine", "size")
"""In the order of looking: what is wrong early makes what comes later meaningless."""

SHOWN_MODULES: Final = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found: what it is, why it is so, and what to do about it."""

    severity: Severity
    stage: Stage
    code: str
    what: str
    cause: str = ""
    repair: str = ""
    modules: list[str] = field(default_factory=list)
    """The first of the modules that it is about."""
    source: str | None = None
    """Where the rule stands that says so."""

    def to_dict(self) -> FindingAnswer:
        """As it is printed and sent."""
        return {
            "severity": self.severity,
            "stage": self.stage,
            "code": self.code,
            "what": self.what,
            "cause": self.cause,
            "repair": self.repair,
            "modules": self.modules,
            "source": self.source,
        }


def ordered(findings: list[Finding]) -> list[Finding]:
    """Gravest first, and among equals the one that was looked for first."""
    return sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), STAGES.index(one.stage)))
