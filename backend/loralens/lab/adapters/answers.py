"""What is answered of adapters: the shapes of reports that the command line prints and the API sends. No torch here."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

Severity = Literal["fault", "warning", "advice"]
Stage = Literal["files", "format", "config", "structure", "fit", "numbers", "engine", "size"]
Verdict = Literal["healthy", "doubtful", "broken"]


class FindingAnswer(TypedDict):
    """One thing that the doctor found: what it is, why it is so, and what to do about it."""

    severity: Severity
    stage: Stage
    code: str
    what: str
    cause: str
    repair: str
    modules: Annotated[list[str], "The first of the modules that it is about."]
    source: Annotated[str | None, "Where the rule stands that says so."]


class MergeErrorAnswer(TypedDict):
    """What merging one module into an NF4 base costs, as a share of the update's norm."""

    module: str
    packed_again: Annotated[float, "Base and update packed to NF4 again."]
    sixteen_bits: Annotated[float, "The unpacked base and the update, rounded to bfloat16."]
    into_the_original: Annotated[float, "Into the base before it was packed."]


class DiagnosisAnswer(TypedDict):
    """All that was found, the gravest first."""

    verdict: Annotated[Verdict, "healthy: nothing worse than advice; doubtful: a warning; broken: a fault."]
    modules: Annotated[int, "Modules with a pair of factors."]
    base: str | None
    engine: str | None
    findings: list[FindingAnswer]
    merging: Annotated[
        list[MergeErrorAnswer], "Where the base's weights were given and its packing: each module's error."
    ]


class ModuleComparisonAnswer(TypedDict):
    """One module that both adapters have. Angles are principal angles in degrees, smallest first."""

    module: str
    norms: Annotated[list[float], "Frobenius norms of the two updates."]
    cosine: float
    relative_difference: float
    input_angles: Annotated[list[float], "Between the spaces that are read."]
    output_angles: Annotated[list[float], "Between the spaces that are written."]
    similarity: Annotated[float, "Subspace similarity of the written directions, 0 to 1."]


class ComparisonAnswer(TypedDict):
    """Two adapters beside each other; modules that differ most come first."""

    cosine: Annotated[float, "Of all updates together as one vector."]
    relative_difference: Annotated[float, "Norm of the difference over the root of the product of the norms."]
    only_first: list[str]
    only_second: list[str]
    modules: list[ModuleComparisonAnswer]


class MergeAnswer(TypedDict):
    """What came of merging."""

    combination: str
    rank: int
    relative_error: Annotated[float, "Distance to the weighted sum of the updates, Frobenius norm."]
    parameters: int
    modules: int
    notes: list[str]
    file_bytes: int


class IdentifiedAnswer(TypedDict):
    """An adapter of a type that has no LoRA spectrum: what it is, and how large."""

    peft_type: Annotated[str, "PEFT's name of the type."]
    says: Annotated[str, "What it does to its base."]
    parameters: Annotated[int, "Numbers that were trained."]
    counted: Annotated[bool, "Whether PEFT's own count of this type was compared and is the same."]
    frozen_parameters: Annotated[int, "Numbers that are stored and were not trained: fixed ones, and places."]
    tensors: int
    tensor_bytes: int
    dtypes: list[str]
    base_model: str | None
    besides: Annotated[list[str], "Settings beside plain LoRA that change what it computes."]


class PlainAnswer(TypedDict):
    """What came of making an adapter plain LoRA of the published base."""

    began: Annotated[str, "PiSSA, OLoRA, CorDA or LoRA-GA."]
    rank: int
    parameters: int
    modules: int
    moved: Annotated[float, "Norm of what was learned over the norm of what the beginning took out of the base."]
    rounding: Annotated[
        float | None,
        "Norm of the rounding of the base that PEFT makes for the original, over that of what was learned; null without the base.",
    ]
    notes: list[str]
    file_bytes: int


class ConvertAnswer(TypedDict):
    """What was written in another format."""

    source: str
    target: str
    modules: int
    file_bytes: int
    exact: Annotated[bool, "Every factor reads back bit for bit."]
    largest_error: Annotated[float, "Otherwise: relative to the factor's largest number."]
    notes: list[str]
