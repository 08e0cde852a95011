"""Advice: the rank that would do, the number format, and what lies in the file besides."""

from __future__ import annotations

from loralens.lab.adapters.doctor.finding import Finding
from loralens.lab.adapters.doctor.numbers import Numbers
from loralens.lab.adapters.doctor.patient import Patient
from loralens.lab.adapters.header import ITEM_BYTES
from loralens.lab.adapters.spectrum import ENERGY_SHARE


def advise(patient: Patient, numbers: list[Numbers]) -> list[Finding]:
    """What could be smaller, in bytes."""
    return [] if patient.file is None else [*_rank(patient, numbers), *_dtype(patient), *_copies(patient)]


def _rank(patient: Patient, numbers: list[Numbers]) -> list[Finding]:
    alive = [one for one in numbers if one.finite and one.entry > 0]
    if not alive:
        return []
    rank, wanted = max(one.pair.rank for one in alive), max(one.rank for one in alive)
    if wanted * 2 > rank:
        return []
    assert patient.file is not None
    saved = sum(
        one.pair.experts
        * (one.pair.rank - min(wanted, one.pair.rank))
        * (one.pair.in_features + one.pair.out_features)
        * ITEM_BYTES[patient.file.entries[one.pair.lora_a].dtype]
        for one in alive
    )
    return [
        Finding(
            "advice", "size", "rank", f"rank {wanted} keeps {ENERGY_SHARE:.0%} of every module's energy; it has rank {rank}",
            "energy is not quality: measure before and after",
            f"loralens adapter resize {patient.called} SMALLER --rank {wanted} saves {saved:,} bytes",
            source="Eckart and Young 1936: truncated SVD is the best approximation of its rank",
        )
    ]  # fmt: skip


def _dtype(patient: Patient) -> list[Finding]:
    assert patient.file is not None
    wide = [one for one in patient.file.header.tensors if one.dtype in ("F32", "F64")]
    size = sum(one.end - one.begin for one in wide)
    if not wide or size * 2 < patient.file.header.data_bytes:
        return []
    half = sum((one.end - one.begin) * 2 // ITEM_BYTES[one.dtype] for one in wide)
    return [
        Finding(
            "advice", "size", "dtype", f"{size:,} bytes are in 32 bits or more; in bfloat16 they would be {half:,}",
            "engines cast factors to the base's format on loading, mostly 16 bits", "save it in the base's format",
            source="vllm-project/vllm 01230b4 vllm/config/lora.py: lora_dtype auto is the base's",
        )
    ]  # fmt: skip


def _copies(patient: Patient) -> list[Finding]:
    assert patient.file is not None
    copies = [
        entry
        for name, entry in patient.file.entries.items()
        if name.endswith(
            ("embed_tokens.weight", "lm_head.weight", "embed_tokens.base_layer.weight", "lm_head.base_layer.weight")
        )
    ]
    size = sum(one.end - one.begin for one in copies)
    if not copies or size * 2 < patient.file.header.data_bytes:
        return []
    return [
        Finding(
            "advice", "size", "embeddings", f"{size:,} of {patient.file.header.data_bytes:,} bytes are whole embeddings",
            "PEFT saves them beside an adapter that targets them, or whose vocabulary was resized",
            "if no token was added: model.save_pretrained(folder, save_embedding_layers=False)",
            [one.name for one in copies],
            "huggingface/peft 0.21.2 utils/save_and_load.py, get_peft_model_state_dict",
        )
    ]  # fmt: skip
