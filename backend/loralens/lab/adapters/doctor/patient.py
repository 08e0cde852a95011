"""An adapter opened as far as it goes: what the strict reader refuses is here a finding, and the rest is looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from loralens.core.errors import InvalidInput, NotFound
from loralens.core.jsontext import from_json
from loralens.lab.adapters import foreign
from loralens.lab.adapters.adalora import PEFT_TYPE as ADALORA
from loralens.lab.adapters.adapter import EMPTY, FACTOR, Layout, Spec, layout
from loralens.lab.adapters.answers import Stage
from loralens.lab.adapters.config import CHANGES_THE_MODEL, MAX_CONFIG_BYTES, AdapterConfig, config_from_mapping
from loralens.lab.adapters.doctor.finding import Finding
from loralens.lab.adapters.folder import CONFIG_FILE, WEIGHTS_FILE
from loralens.lab.adapters.parameters import ParameterPart, parameter_parts
from loralens.lab.adapters.stream import TensorFile
from loralens.lab.factors import PREFIX

_PEFT_ALONE: Final = (CHANGES_THE_MODEL - {"enable_lora"}) | {"peft_type"}
"""What PEFT reads and is not read here: no fault of the adapter."""
_BY_PEFT: Final = "names, shapes and numbers are looked at without it; PEFT alone can say the rest"
_COMPILED: Final = "_orig_mod."


@dataclass(frozen=True, slots=True)
class Pair:
    """One module's factors, by the names of their tensors. Shapes: lora_a (rank, in_features), lora_b (out_features, rank).

    Those of a parameter have `experts` such pairs, as `Factors`.
    """

    module: str
    lora_a: str
    lora_b: str
    in_features: int
    out_features: int
    rank: int
    scaling: float
    is_embedding: bool
    is_parameter: bool = False
    experts: int = 1


@dataclass(slots=True)
class Patient:
    """What could be read; `checked` is None where the strict reader refuses the config."""

    folder: Path
    called: str
    """What commands in repairs call the folder."""
    config: dict[str, object] = field(default_factory=dict)
    checked: AdapterConfig | None = None
    plan: Layout | None = None
    file: TensorFile | None = None
    pairs: dict[str, Pair] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def others(self) -> list[str]:
        """Names of tensors that are no lora_A and no lora_B."""
        of_pairs = {name for pair in self.pairs.values() for name in (pair.lora_a, pair.lora_b)}
        return [] if self.file is None else [name for name in self.file.entries if name not in of_pairs]


def open_patient(folder: Path, called: str | None = None) -> Patient:
    """Open an adapter's folder. Nothing raises but a folder that is not there: it all becomes findings."""
    if not folder.is_dir():
        raise NotFound(f"{folder} is not a folder", field="folder", hint="name the folder with adapter_config.json")
    patient = Patient(folder, str(folder) if called is None else called)
    names = [path.name for path in folder.iterdir()]
    instead = foreign.of_files(names)
    if WEIGHTS_FILE not in names:
        what, repair = instead or ("", "copy it from where the adapter was trained")
        _add(patient, "files", "no_weights", f"{WEIGHTS_FILE} is missing" + (what and f": {what}"), repair)
    if CONFIG_FILE not in names:
        repair = "" if instead else "copy it from where the adapter was trained; rank and alpha cannot be guessed"
        _add(patient, "files", "no_config", f"{CONFIG_FILE} is missing", repair)
    if CONFIG_FILE in names:
        _read_config(patient)
    if WEIGHTS_FILE in names:
        _read_weights(patient)
    if patient.file is not None and patient.checked is not None and not patient.findings:
        _structure(patient, patient.file, patient.checked)
    if patient.checked is not None and "alora_invocation_tokens" in patient.checked.acts_otherwise:
        patient.findings.append(Finding("warning", "config", "alora", "it acts from its invocation tokens on (aLoRA)",
                                        "an engine that does not read alora_invocation_tokens lets it act on every token",
                                        "serve it with PEFT, or with an engine that knows aLoRA",
                                        source="huggingface/peft 0.21.2 tuners/lora/variants.py, ALoraLinearVariant"))  # fmt: skip
    return patient


def _read_config(patient: Patient) -> None:
    path = patient.folder / CONFIG_FILE
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise InvalidInput(f"{CONFIG_FILE} has more than {MAX_CONFIG_BYTES} bytes")
        given = from_json(path.read_bytes())
        if not isinstance(given, dict):
            raise InvalidInput(f"{CONFIG_FILE} holds no JSON object")
    except (ValueError, RecursionError, OSError) as error:
        _add(
            patient, "files", "config_unreadable", f"{CONFIG_FILE} cannot be read: {error}", "write it again with PEFT"
        )
        return
    patient.config = given
    try:
        patient.checked = config_from_mapping(given)
    except InvalidInput as error:
        if given.get("peft_type") == ADALORA:
            patient.findings.append(Finding("warning", "config", "adalora", "it is AdaLoRA, which PEFT alone loads",
                                            "its singular values (lora_E) stand between the factors",
                                            f"loralens adapter resize {patient.called} LORA_FOLDER --energy 1 writes it as LoRA"))  # fmt: skip
        elif foreign.of_config(given):
            _add(patient, "format", "foreign_format", error.message, error.hint or "")
        elif (error.field or "").removeprefix("adapter_config.") in _PEFT_ALONE:
            patient.findings.append(Finding("warning", "config", "not_read", error.message, "", _BY_PEFT))
        else:
            _add(patient, "config", "config", error.message, error.hint or "", cause=error.field or "")


def _read_weights(patient: Patient) -> None:
    try:
        patient.file = TensorFile(patient.folder / WEIGHTS_FILE)
    except (InvalidInput, NotFound) as error:
        _add(
            patient,
            "files",
            "weights_unreadable",
            error.message,
            error.hint or "copy the file again, and compare sizes",
        )
        return
    names = list(patient.file.entries)
    odd = [name for name in names if not (name.startswith(PREFIX) and FACTOR.fullmatch(name.removeprefix(PREFIX)))]
    declared = bool(patient.config.get("trainable_token_indices"))
    strange = [
        (name, found)
        for name in odd
        if (found := foreign.of_names(name)) is not None and not (declared and name.endswith("trainable_tokens_delta"))
    ]
    if strange:
        name, (what, repair) = strange[0]
        _add(
            patient, "format", "foreign_format", what, repair, cause=f"{len(strange)} of {len(names)} names, as {name}"
        )
    empty = [entry.name for entry in patient.file.header.tensors if 0 in entry.shape]
    if empty and patient.config.get("peft_type") != ADALORA:  # which prunes ranks to zero
        what = f"{len(empty)} of {len(names)} tensors are empty"
        _add(patient, "files", "empty", what, EMPTY[1], cause=f"{EMPTY[0]}; as {empty[0]}")
    compiled = [name for name in names if _COMPILED in name]
    if compiled:
        what = f"{len(compiled)} of {len(names)} names hold {_COMPILED}: the weights were saved from a model inside torch.compile"
        repair = "PeftModel.from_pretrained(base, folder, key_mapping={'_orig_mod\\\\.': ''}); save from model._orig_mod next time"
        _add(patient, "format", "compiled", what, repair, cause=f"as {compiled[0]}")
    patient.pairs = _pairs(patient)


def _pairs(patient: Patient) -> dict[str, Pair]:
    """The modules whose two factors are matrices of one rank."""
    assert patient.file is not None
    roles: dict[str, dict[str, str]] = {}
    for name in patient.file.entries:
        match = FACTOR.fullmatch(name.removeprefix(PREFIX))
        if match:
            roles.setdefault(match["module"], {})[match["role"]] = name
    found = {}
    parameters = _parameters(patient, roles)
    for module, own in roles.items():
        for first, second in (("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B")):
            if first in own and second in own:
                a, b = (patient.file.entries[own[role]].shape for role in (first, second))
                if len(a) == len(b) == 2 and a[0] == b[1] and 0 not in a + b:
                    part = parameters.get(module) or ParameterPart(a[0], _scaling(patient, module, a[0]), 1)
                    found[module] = Pair(
                        module, own[first], own[second], a[1], b[0], part.rank, part.scaling, first == "lora_embedding_A",
                        module in parameters, part.experts,
                    )  # fmt: skip
    return found


def _parameters(patient: Patient, roles: dict[str, dict[str, str]]) -> dict[str, ParameterPart]:
    """Which of the modules are parameters; none where the config does not say so clearly, which `_structure` says."""
    assert patient.file is not None
    if patient.checked is None:
        return {}
    rows = {
        m: patient.file.entries[own["lora_A.weight"]].shape[:1] for m, own in roles.items() if "lora_A.weight" in own
    }
    try:
        return parameter_parts(patient.checked, {module: shape[0] for module, shape in rows.items() if shape})
    except InvalidInput:
        return {}


def _scaling(patient: Patient, module: str, rank: int) -> float:
    if patient.checked is not None:
        return patient.checked.scaling_of(module)
    alpha = patient.config.get("lora_alpha", rank)
    return alpha / rank if isinstance(alpha, (int, float)) and math.isfinite(alpha) else 1.0


def _structure(patient: Patient, file: TensorFile, checked: AdapterConfig) -> None:
    specs = {entry.name: Spec(entry.shape, entry.dtype) for entry in file.header.tensors}
    try:
        patient.plan = layout(checked, specs)
    except InvalidInput as error:
        repair = error.hint or "write it again with PEFT: model.save_pretrained(folder)"
        _add(patient, "structure", "structure", error.message, repair, cause=error.field or "")


def _add(patient: Patient, stage: Stage, code: str, what: str, repair: str, *, cause: str = "") -> None:
    if any((found.code, found.what) == (code, what) for found in patient.findings):
        return  # config and weights say the same
    patient.findings.append(Finding("fault", stage, code, what, cause, repair))
