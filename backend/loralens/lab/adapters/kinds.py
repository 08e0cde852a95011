"""Adapters that are not LoRA: what they are called, what they do to the base, and what of their file was trained.

Source: huggingface/peft 0.21.2, utils/peft_types.py and tuners/; the counts of the types marked `counted` are equal to
PEFT's own (tests/lab/adapters/test_kinds.py; those of prompts and ShadowPEFT were compared once, on a Llama of two layers).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loralens.core.errors import InvalidInput
from loralens.core.jsontext import from_json
from loralens.lab.adapters import adalora, foreign
from loralens.lab.adapters.answers import IdentifiedAnswer
from loralens.lab.adapters.config import CHANGES_THE_MODEL, MAX_CONFIG_BYTES
from loralens.lab.adapters.stream import DTYPES, TensorFile


@dataclass(frozen=True, slots=True)
class AdapterKind:
    """One of PEFT's types. `frozen`: tensors that are stored and not trained. `counted`: held against PEFT's own count."""

    says: str
    frozen: str | None = None
    counted: bool = True


KINDS: Final = {
    "LORA": AdapterKind("LoRA: a product of two factors is added to each weight"),
    "ADALORA": AdapterKind("AdaLoRA: LoRA with trained singular values between the factors (lora_E); unimportant ones are pruned"),
    "ADAMSS": AdapterKind("AdaMSS: updates within clustered subspaces of each weight's SVD", counted=False),
    "ADAPTION_PROMPT": AdapterKind("LLaMA-Adapter: learned prompts enter the upper layers' attention through a gate", counted=False),
    "BEFT": AdapterKind("BEFT: trained biases on the targeted layers"),
    "BOFT": AdapterKind("BOFT: each weight is turned by butterfly factors of an orthogonal matrix, and scaled (boft_s)"),
    "C3A": AdapterKind("C3A: block-circular convolutions are added to each weight"),
    "CARTRIDGE": AdapterKind("Cartridge: a trained key and value cache stands before the text", counted=False),
    "CPT": AdapterKind("Context-aware prompt tuning: the tokens of examples become trained embeddings"),
    "DEFT": AdapterKind("DEFT: a low-rank direction is projected out of each weight and other knowledge put in its place"),
    "DELORA": AdapterKind("DeLoRA: LoRA with normalised factors and a trained strength for each layer", r".*\.delora_w_norm"),
    "FOURIERFT": AdapterKind("FourierFT: trained coefficients of each update's spectrum at fixed places"),
    "FROD": AdapterKind("FRoD: sparse and diagonal parts are trained in a shared frozen basis", r".*\bfrod_V\..*"),
    "GLORA": AdapterKind("GLoRA: W + W·A + B, with the bias scaled and moved besides", r".*\.zeros"),
    "GRALORA": AdapterKind("GraLoRA: each weight is cut into blocks with LoRA factors of their own"),
    "HIRA": AdapterKind("HiRA: the low-rank product multiplies the weight, entry by entry"),
    "HRA": AdapterKind("HRA: each weight is reflected by a chain of Householder reflections"),
    "IA3": AdapterKind("(IA)³: vectors multiply keys, values and the inner activations of the MLP"),
    "LILY": AdapterKind("Lily: factors shared between layers, mixed by a router; shared ones are stored at each place", counted=False),
    "LN_TUNING": AdapterKind("LN tuning: the norms' own weights, trained"),
    "LOHA": AdapterKind("LoHa: two low-rank products, multiplied entry by entry, are added to each weight"),
    "LOKR": AdapterKind("LoKr: a Kronecker product of two small matrices is added to each weight"),
    "MISS": AdapterKind("MiSS: one small matrix, repeated along the rows, is added to each weight"),
    "MULTITASK_PROMPT_TUNING": AdapterKind("Multitask prompt tuning: virtual tokens, shared and adapted to each task"),
    "OFT": AdapterKind("OFT: each weight is turned by a block-diagonal orthogonal matrix (Cayley transform of oft_R)"),
    "OSF": AdapterKind("OSF: the lower singular directions of each weight train, the upper ones are frozen"),
    "P_TUNING": AdapterKind("P-tuning: virtual tokens made by an encoder; the file holds its outcome, not the encoder", counted=False),
    "PEANUT": AdapterKind("PEANuT: a small network of the weight itself gives its update"),
    "POLY": AdapterKind("Poly: several LoRAs for each layer, mixed by a router of tasks"),
    "PREFIX_TUNING": AdapterKind("Prefix tuning: trained keys and values before the text, in every layer"),
    "PROMPT_TUNING": AdapterKind("Prompt tuning: trained embeddings of virtual tokens before the text"),
    "PSOFT": AdapterKind("PSOFT: an orthogonal turn within each weight's principal subspace", counted=False),
    "PVERA": AdapterKind("PVeRA: VeRA with a probabilistic latent", r"base_model\.pvera_[AB]"),
    "RANDLORA": AdapterKind("RandLoRA: many frozen random products, scaled by trained vectors", r".*randlora_[AB]"),
    "ROAD": AdapterKind("RoAd: pairs of outputs are turned and scaled", counted=False),
    "SHADOW": AdapterKind("ShadowPEFT: a small network beside the base hands states to its blocks"),
    "SHIRA": AdapterKind("SHiRA: a sparse set of each weight's entries, trained; the file holds their places and changes"),
    "SUPERTUNING": AdapterKind("Supertuning: few entries of each weight, trained; the file holds their places and values"),
    "TINYLORA": AdapterKind("TinyLoRA: a few trained numbers steer fixed low-rank directions", r".*\.tinylora_[ABP]"),
    "TRAINABLE_TOKENS": AdapterKind("Trainable tokens: single rows of an embedding, as changes"),
    "UNILORA": AdapterKind("Uni-LoRA: all factors are projections of one trained vector"),
    "VBLORA": AdapterKind("VB-LoRA: factors are mixed from a shared bank of vectors by trained logits"),
    "VERA": AdapterKind("VeRA: frozen random factors, shared by all layers, between two trained vectors", r"base_model\.vera_[AB]"),
    "WAVEFT": AdapterKind("WaveFT: trained coefficients of each update's wavelets at fixed places"),
    "XLORA": AdapterKind("X-LoRA: several LoRAs, mixed token by token by a trained classifier", counted=False),
}  # fmt: skip
"""Every type that PEFT 0.21.2 lists and has a tuner for."""


@dataclass(frozen=True, slots=True)
class Identified:
    """An adapter of any type: what it is, what it trained, and what the file holds besides."""

    peft_type: str
    says: str
    parameters: int
    counted: bool
    frozen_parameters: int
    tensors: int
    tensor_bytes: int
    dtypes: list[str]
    base_model: str | None
    besides: list[str]

    def to_dict(self) -> IdentifiedAnswer:
        """As it is printed and sent."""
        return {
            "peft_type": self.peft_type,
            "says": self.says,
            "parameters": self.parameters,
            "counted": self.counted,
            "frozen_parameters": self.frozen_parameters,
            "tensors": self.tensors,
            "tensor_bytes": self.tensor_bytes,
            "dtypes": self.dtypes,
            "base_model": self.base_model,
            "besides": self.besides,
        }


def identify_files(config_file: Path, weights_file: Path) -> Identified | None:
    """Identify an adapter by its config and its file's header; None for plain LoRA, which `inspect_adapter` reads.

    Raises: `NotFound` or `InvalidInput` for files that are missing, malformed, or of a type that PEFT 0.21 does not list.
    """
    if not config_file.is_file() or config_file.stat().st_size > MAX_CONFIG_BYTES or not weights_file.is_file():
        return None  # the strict reader says what is wrong
    try:
        config = from_json(config_file.read_bytes())
    except (ValueError, RecursionError):
        return None
    if not isinstance(config, dict) or foreign.of_config(config) is not None:
        return None
    name = config.get("peft_type")
    besides = sorted(key for key in CHANGES_THE_MODEL if config.get(key) not in (None, False, "", [], {}))
    if name == "LORA" and not besides:
        return None
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise InvalidInput(f"PEFT 0.21 lists no type {str(name)[:40]!r}", field="adapter_config.peft_type")
    return _counted(TensorFile(weights_file), str(name), kind, config, besides)


def without_spectrum(config_file: Path, weights_file: Path) -> Identified | None:
    """The same for what `inspect_adapter` does not read: AdaLoRA is read as LoRA."""
    found = identify_files(config_file, weights_file)
    return None if found is not None and found.peft_type == adalora.PEFT_TYPE else found


def _counted(
    file: TensorFile, name: str, kind: AdapterKind, config: dict[str, object], besides: list[str]
) -> Identified:
    frozen = re.compile(kind.frozen) if kind.frozen else None
    trained = still = 0
    for entry in file.header.tensors:
        numbers = 1
        for size in entry.shape:
            numbers *= size
        if not DTYPES[entry.dtype].is_floating_point or (frozen is not None and frozen.fullmatch(entry.name)):
            still += numbers
        else:
            trained += numbers
    base = config.get("base_model_name_or_path")
    return Identified(
        name, kind.says, trained, kind.counted and not besides, still, len(file.entries), file.header.data_bytes,
        sorted({str(DTYPES[entry.dtype]).removeprefix("torch.") for entry in file.header.tensors}),
        base if isinstance(base, str) else None, besides,
    )  # fmt: skip
