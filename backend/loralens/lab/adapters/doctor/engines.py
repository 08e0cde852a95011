"""What each engine refuses or reads otherwise, by its own code. Each rule names the file that it was read in."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

from loralens.core.answer.adapter_serving import VLLM_DEFAULT_RANK, VLLM_RANKS
from loralens.core.errors import InvalidInput
from loralens.core.jsontext import from_json
from loralens.lab.adapters.answers import Severity
from loralens.lab.adapters.config import MAX_CONFIG_BYTES
from loralens.lab.adapters.doctor.base import Base
from loralens.lab.adapters.doctor.finding import SHOWN_MODULES, Finding
from loralens.lab.adapters.doctor.patient import Patient

_VLLM_CONFIG: Final = "vllm-project/vllm 01230b4 vllm/config/lora.py"
_VLLM_HELPER: Final = "vllm-project/vllm vllm/lora/peft_helper.py, PEFTHelper.validate_legal"
_VLLM_NAMES: Final = "vllm-project/vllm 0306474 vllm/lora/lora_model.py; vllm/lora/utils.py, parse_fine_tuned_lora_name"
_SGLANG: Final = "sgl-project/sglang python/sglang/srt/lora/lora_manager.py, validate_new_adapter"
_SGLANG_CONFIG: Final = "sgl-project/sglang 0ceb81f python/sglang/srt/lora/lora_config.py"
_SGLANG_POOL: Final = "sgl-project/sglang python/sglang/srt/lora/mem_pool.py, can_support"
_LLAMA_CPP: Final = "ggml-org/llama.cpp 0b03ada convert_lora_to_gguf.py"
_MLX: Final = "ml-explore/mlx-lm 0367287 mlx_lm/tuner/utils.py, load_adapters"

_PLAIN: Final = re.compile(r".+\.(lora_[AB]\.weight|lora_embedding_[AB])")
_COPY: Final = re.compile(r".+\.(embed_tokens|lm_head)\.base_layer\.weight")
_MERGE: Final = "merge it into its base first: model.merge_and_unload()"
_FOLD: Final = "loralens adapter resize folds the scaling into the factors: then alpha equals the rank everywhere"


def judge(patient: Patient, base: Base | None, engine: str) -> list[Finding]:
    """Findings for one engine.

    Raises: `InvalidInput` for an engine that is not known here.
    """
    if engine not in ENGINES:
        raise InvalidInput(f"unknown engine {engine[:40]!r}", field="engine", hint=f"one of {', '.join(ENGINES)}")
    return ENGINES[engine](patient, base)


def _vllm(patient: Patient, base: Base | None) -> list[Finding]:
    config, rank = patient.config, _rank(patient)
    findings = []
    if config.get("use_dora"):
        findings.append(_refused("dora", "vLLM does not load DoRA", _MERGE, _VLLM_HELPER))
    saved = config.get("modules_to_save")
    if saved and isinstance(saved, list):  # anything else is no config of PEFT's, which is said already
        what = f"vLLM loads no modules_to_save ({', '.join(map(str, saved))[:80]})"
        findings.append(_refused("modules_to_save", what, _MERGE, _VLLM_HELPER))
    if config.get("bias", "none") != "none":
        findings.append(_refused("bias", "vLLM loads no trained biases", _MERGE, _VLLM_HELPER))
    if rank > VLLM_RANKS[-1]:
        what = f"vLLM serves ranks up to {VLLM_RANKS[-1]}, this has {rank}"
        findings.append(_refused("rank", what, "loralens adapter resize --rank 512", _VLLM_CONFIG))
    elif rank > VLLM_DEFAULT_RANK:
        wanted = next(one for one in VLLM_RANKS if one >= rank)
        what = f"rank {rank} is above vLLM's default of {VLLM_DEFAULT_RANK}: it refuses the adapter as it starts by default"
        findings.append(_said("warning", "rank", what, f"vllm serve … --max-lora-rank {wanted}", _VLLM_CONFIG))
    findings += _patterns(patient, "vLLM reads r and lora_alpha alone", _VLLM_HELPER)
    names = [one for one in patient.others if not _PLAIN.fullmatch(one) and not _COPY.fullmatch(one)]
    if names and not findings:
        what = f"vLLM refuses {len(names)} tensors by name, as {names[0]}"
        findings.append(_refused("names", what, _MERGE, _VLLM_NAMES, names))
    if base is not None:
        vocabulary = base.inner.get("vocab_size")
        odd = [p.module for p in patient.pairs.values() if p.is_embedding and p.in_features != vocabulary]
        if odd:
            what = "vLLM needs an adapter of the embeddings to have the base's vocabulary"
            findings.append(_refused("vocabulary", what, _MERGE, _VLLM_NAMES, odd))
    return findings


def _sglang(patient: Patient, base: Base | None) -> list[Finding]:
    rank = _rank(patient)
    findings = []
    if patient.config.get("use_dora"):
        findings.append(_refused("dora", "SGLang does not load DoRA", _MERGE, _SGLANG))
    vocabulary = None if base is None else base.inner.get("vocab_size")
    if any(not isinstance(vocabulary, int) or number >= vocabulary for number in _added_tokens(patient)):
        what = "SGLang loads no adapter that adds tokens to the vocabulary (added_tokens.json)"
        repair = "remove the file if its tokens are the base's own" if vocabulary is None else _MERGE
        findings.append(_said("warning" if vocabulary is None else "fault", "vocabulary", what, repair, _SGLANG))
    findings += _patterns(
        patient,
        "SGLang admits and scales by r and lora_alpha in versions before it read the patterns",
        _SGLANG_CONFIG,
        "warning",
    )
    what = f"SGLang takes the largest rank and all target modules from the adapters it starts with: later ones must not exceed them (this has rank {rank})"
    findings.append(
        _said("advice", "rank", what, f"sglang … --max-lora-rank {rank} --lora-target-modules …", _SGLANG_POOL)
    )
    return findings


def _added_tokens(patient: Patient) -> list[int]:
    """The numbers in added_tokens.json. Those below the base's vocabulary are its own tokens, copied, which SGLang passes over."""
    file = patient.folder / "added_tokens.json"
    try:
        found = from_json(file.read_bytes()) if file.is_file() and file.stat().st_size <= MAX_CONFIG_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return []
    return [number for number in found.values() if isinstance(number, int)] if isinstance(found, dict) else []


def _llama_cpp(patient: Patient, base: Base | None) -> list[Finding]:
    config = patient.config
    names = [
        one
        for one in patient.others
        if not _PLAIN.fullmatch(one)
        and not one.endswith(".base_layer.weight")
        and "_layernorm" not in one
        and ".norm" not in one
    ]
    findings = []
    if names:
        what = f"convert_lora_to_gguf.py stops at {names[0]}: it takes lora_A and lora_B alone"
        findings.append(_refused("names", what, f"{_MERGE}, and convert the whole model", _LLAMA_CPP, names))
    if config.get("use_rslora") and patient.pairs:
        worst = max(math.sqrt(pair.rank) for pair in patient.pairs.values())
        what = (
            f"the conversion does not read use_rslora: llama.cpp scales by alpha / rank, {worst:.3g} times too little"
        )
        findings.append(_refused("rslora", what, _FOLD, f"{_LLAMA_CPP}; src/llama-adapter.h, get_scale"))
    if config.get("alpha_pattern"):
        what = "the conversion reads one lora_alpha for all modules: alpha_pattern is lost"
        findings.append(_refused("alpha_pattern", what, _FOLD, _LLAMA_CPP))
    heads = [pair.module for pair in patient.pairs.values() if pair.module.endswith("lm_head")]
    if heads and base is not None and base.inner.get("tie_word_embeddings"):
        what = "the base's head is tied to its embeddings, and the conversion refuses an adapter of lm_head there"
        findings.append(_refused("tied_head", what, _MERGE, _LLAMA_CPP, heads))
    return findings


def _mlx(patient: Patient, base: Base | None) -> list[Finding]:
    what = "MLX reads adapters.safetensors and a config of its own, not PEFT's folder"
    repair = f"loralens adapter convert {patient.called} MLX_FOLDER --to mlx"
    return [_refused("format", what, repair, _MLX)]


def _peft(patient: Patient, base: Base | None) -> list[Finding]:
    """PEFT is what an adapter folder is written for: all that it refuses is said without an engine."""
    return []


ENGINES: Final[dict[str, Callable[[Patient, Base | None], list[Finding]]]] = {
    "peft": _peft,
    "vllm": _vllm,
    "sglang": _sglang,
    "llama.cpp": _llama_cpp,
    "mlx": _mlx,
}
"""Engines whose rules are known here."""


def _rank(patient: Patient) -> int:
    ranks = [pair.rank for pair in patient.pairs.values()]
    return max([*ranks, _whole(patient.config.get("r"))])


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _patterns(patient: Patient, rule: str, source: str, severity: Severity = "fault") -> list[Finding]:
    """Modules whose rank or alpha the engine would take for the default's."""
    checked = patient.checked
    if checked is None:
        return []
    usual = checked.alpha / (math.sqrt(checked.rank) if checked.use_rslora else checked.rank)
    odd = [p.module for p in patient.pairs.values() if not math.isclose(p.scaling, usual, rel_tol=1e-6)]
    if not odd:
        return []
    what = f"{rule}: {len(odd)} of {len(patient.pairs)} modules are scaled otherwise by rank_pattern or alpha_pattern"
    return [Finding(severity, "engine", "patterns", what, "", _FOLD, odd[:SHOWN_MODULES], source)]


def _refused(code: str, what: str, repair: str, source: str, modules: list[str] | None = None) -> Finding:
    return Finding("fault", "engine", code, what, "", repair, (modules or [])[:SHOWN_MODULES], source)


def _said(severity: Severity, code: str, what: str, repair: str, source: str) -> Finding:
    return Finding(severity, "engine", code, what, "", repair, [], source)
