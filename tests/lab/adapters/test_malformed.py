"""Malformed adapter files: each is refused with a clear message and leaves nothing on disk."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.adapter import Adapter
from loralens.lab.adapters.comparing import compare_adapters
from loralens.lab.adapters.files import read_adapter_bytes
from loralens.lab.adapters.header import MAX_HEADER_BYTES, read_header
from loralens.lab.adapters.merging import merge_adapters
from loralens.lab.adapters.resize import resize_adapter

from .helpers import container, files, peft_config, random_tensors

A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"


def _entry(shape: list[object], begin: object, end: object, dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def _changed(change: Callable[[dict[str, torch.Tensor]], object]) -> bytes:
    tensors = random_tensors()
    change(tensors)
    return save({name: tensor.clone() for name, tensor in tensors.items()})


def _with_value(value: float) -> bytes:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[A][0, 0] = value

    return _changed(change)


GOOD_CONFIG, GOOD_WEIGHTS = files()
PAIR = {A: _entry([1, 4], 0, 16), B: _entry([4, 1], 16, 32)}

WEIGHTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "too few"),
    "seven bytes": (b"\x01" * 7, "too few"),
    "truncated header": (GOOD_WEIGHTS[:100], "truncated"),
    "truncated data": (GOOD_WEIGHTS[:-1], "truncated"),
    "trailing bytes": (GOOD_WEIGHTS + b"\0", "belong to no tensor"),
    "huge header claimed": (container(PAIR, bytes(32), length=2**63), f"at most {MAX_HEADER_BYTES}"),
    "header just over the limit": (container(PAIR, bytes(32), length=MAX_HEADER_BYTES + 1), "at most"),
    "header length zero": (container(PAIR, bytes(32), length=0), "does not start"),
    "pickle": (pickle.dumps({"a": 1}), "pickle"),
    "torch zip": (b"PK\x03\x04" + bytes(64), "pickle"),
    "html error page": (b"<!DOCTYPE html><html></html>", "at most"),
    "header is a list": (container([1, 2, 3]), "does not start"),
    "header not JSON": (container(b"{nonsense"), "not JSON"),
    "header not UTF-8": (container(b'{"\xff": 1}'), "UTF-8"),
    "header nested deeply": (container(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "nested too deeply"),
    "header with NaN": (container(b'{"a": NaN}'), "NaN"),
    "no tensors": (container({"__metadata__": {"format": "pt"}}), "no tensors"),
    "metadata not text": (container(PAIR | {"__metadata__": {"format": 1}}, bytes(32)), "__metadata__"),
    "listed twice": (container(b'{"x": 1, "x": 2}'), "twice"),
    "entry without shape": (container({A: {"dtype": "F32", "data_offsets": [0, 16]}}, bytes(16)), "exactly"),
    "entry with an extra key": (container({A: _entry([1, 4], 0, 16) | {"x": 1}}, bytes(16)), "exactly"),
    "unknown dtype": (container({A: _entry([1, 4], 0, 16, "F12")}, bytes(16)), "dtype"),
    "factors of whole numbers": (_changed(lambda t: t.update({n: v.int() for n, v in t.items()})), "F32, F16, BF16"),
    "factors in 64 bits": (_changed(lambda t: t.update({n: v.double() for n, v in t.items()})), "F32, F16, BF16"),
    "dtype is a list": (container({A: _entry([1, 4], 0, 16, ["F32"])}, bytes(16)), "dtype"),
    "negative dimension": (container({A: _entry([-1, -4], 0, 16)}, bytes(16)), "whole number"),
    "dimension of zero": (container({A: _entry([0, 4], 0, 0)}), "is empty, of shape"),
    "dimension is a truth value": (container({A: _entry([True, 4], 0, 16)}, bytes(16)), "whole number"),
    "dimension is a fraction": (container({A: _entry([1.0, 4], 0, 16)}, bytes(16)), "whole number"),
    "dimensions overflow": (container({A: _entry([2**30, 2**30, 2**4], 0, 0)}), "needs"),
    "five dimensions": (container({A: _entry([1, 1, 1, 1, 4], 0, 16)}, bytes(16)), "dimensions"),
    "scalar": (container({A: _entry([], 0, 4), B: _entry([4, 1], 4, 20)}, bytes(20)), "matrices"),
    "shape and bytes differ": (container({A: _entry([1, 5], 0, 16)}, bytes(16)), "needs 20 bytes"),
    "offsets backwards": (container({A: _entry([1, 4], 16, 0)}, bytes(16)), "backwards"),
    "offsets negative": (container({A: _entry([1, 4], -16, 0)}, bytes(16)), "backwards"),
    "offsets not two": (container({A: {"dtype": "F32", "shape": [1, 4], "data_offsets": [0]}}), "two whole"),
    "offsets beyond the file": (container({A: _entry([2**20, 4], 0, 2**24)}, bytes(16)), "truncated"),
    "same bytes twice": (container({A: _entry([1, 4], 0, 16), B: _entry([4, 1], 0, 16)}, bytes(16)), "overlaps"),
    "overlapping bytes": (container({A: _entry([1, 4], 0, 16), B: _entry([4, 1], 8, 24)}, bytes(24)), "overlaps"),
    "hole between tensors": (container({A: _entry([1, 4], 0, 16), B: _entry([4, 1], 20, 36)}, bytes(36)), "belong"),
    "hole at the start": (container({A: _entry([1, 4], 4, 20)}, bytes(20)), "belong"),
    "path in a name": (container({"../../etc/passwd": _entry([1, 4], 0, 16)}, bytes(16)), "dotted module name"),
    "absolute path": (container({"/etc/passwd": _entry([1, 4], 0, 16)}, bytes(16)), "dotted module name"),
    "dots in a name": (container({"base_model..x": _entry([1, 4], 0, 16)}, bytes(16)), "dotted module name"),
    "NUL in a name": (container({"base\0": _entry([1, 4], 0, 16)}, bytes(16)), "dotted module name"),
    "endless name": (container({"a" * 600: _entry([1, 4], 0, 16)}, bytes(16)), "dotted module name"),
    "name without PEFT's prefix": (_changed(lambda t: t.update({"x.lora_A.weight": torch.ones(4, 16)})), "start with"),
    "unknown tensor": (_changed(lambda t: t.update({f"{A}x": torch.ones(4, 16)})), "neither"),
    "full weight nobody asked for": (
        _changed(lambda t: t.update({"base_model.model.model.norm.weight": torch.ones(4)})),
        "neither",
    ),
    "A without B": (_changed(lambda t: t.pop(B)), "lora_B.weight is missing"),
    "B without A": (_changed(lambda t: t.pop(A)), "lora_A.weight is missing"),
    "A transposed": (_changed(lambda t: t.update({A: t[A].T.contiguous()})), "has rank 16"),
    "pair of another rank": (
        _changed(lambda t: t.update({A: torch.ones(3, 16), B: torch.ones(24, 3)})),
        "config says 4",
    ),
    "factor of a convolution": (_changed(lambda t: t.update({A: torch.ones(4, 16, 1, 1)})), "matrices"),
    "factors in two formats": (_changed(lambda t: t.update({A: t[A].half()})), "number formats"),
    "NaN": (_with_value(float("nan")), "not finite"),
    "infinity": (_with_value(float("inf")), "not finite"),
    "module nobody targets": (
        _changed(lambda t: t.update({A.replace("q_proj", "k_proj"): t[A], B.replace("q_proj", "k_proj"): t[B]})),
        "target_modules",
    ),
    "magnitude without use_dora": (
        _changed(lambda t: t.update({A.replace("lora_A.weight", "lora_magnitude_vector"): torch.ones(24)})),
        "use_dora",
    ),
    "bias of lora_B without lora_bias": (
        _changed(lambda t: t.update({B.replace("weight", "bias"): torch.ones(24)})),
        "lora_bias",
    ),
}

CONFIGS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not UTF-8 JSON"),
    "list": (b"[]", "not a JSON object"),
    "not JSON": (b"{", "not UTF-8 JSON"),
    "not UTF-8": (b'{"r": "\xff"}', "not UTF-8 JSON"),
    "too long": (b" " * (2**20 + 1), "at most"),
    "nested deeply": (b"[" * 200_000, "nested too deeply"),
    "NaN": (b'{"peft_type": "LORA", "lora_alpha": NaN}', "NaN"),
    "not LoRA": (json.dumps(peft_config(peft_type="IA3")).encode(), "only LORA"),
    "rank zero": (json.dumps(peft_config(r=0)).encode(), "whole number"),
    "rank as text": (json.dumps(peft_config(r="4")).encode(), "whole number"),
    "rank true": (json.dumps(peft_config(r=True)).encode(), "whole number"),
    "rank huge": (json.dumps(peft_config(r=10**9)).encode(), "whole number"),
    "alpha zero": (json.dumps(peft_config(lora_alpha=0)).encode(), "above 0"),
    "alpha infinite": (b'{"peft_type": "LORA", "target_modules": ["q_proj"], "lora_alpha": 1e999}', "above 0"),
    "dropout one": (json.dumps(peft_config(lora_dropout=1)).encode(), "from 0 to 0.999"),
    "bias unknown": (json.dumps(peft_config(bias="some")).encode(), "one of none, all, lora_only"),
    "no targets": (json.dumps(peft_config(target_modules=[])).encode(), "names no module"),
    "targets missing": (json.dumps(peft_config(target_modules=None)).encode(), "list of module names"),
    "target is a path": (json.dumps(peft_config(target_modules=["../q_proj"])).encode(), "not a module name"),
    "excluded module with factors": (json.dumps(peft_config(exclude_modules=["q_proj"])).encode(), "exclude_modules"),
    "beginning that is no word": (json.dumps(peft_config(init_lora_weights=[1])).encode(), "init_lora_weights"),
    "MLX": (b'{"fine_tune_type": "lora", "lora_parameters": {"rank": 8}}', "MLX"),
    "another rank": (json.dumps(peft_config(r=8)).encode(), "config says 8"),
    "rank pattern of another rank": (json.dumps(peft_config(rank_pattern={"q_proj": 8})).encode(), "config says 8"),
    "rank pattern not a mapping": (json.dumps(peft_config(rank_pattern=[1])).encode(), "must map"),
    "rank pattern that never ends": (json.dumps(peft_config(rank_pattern={"(a+)+$": 4})).encode(), "may never end"),
    "rank pattern of many alternatives": (
        json.dumps(peft_config(rank_pattern={"(.|.)" * 30 + "z": 4})).encode(),
        "too many alternatives",
    ),
    "rank pattern with a look-ahead": (json.dumps(peft_config(rank_pattern={"(?=q)": 4})).encode(), "cannot be read"),
    "targets that never end": (json.dumps(peft_config(target_modules="(a+)+$")).encode(), "may never end"),
    "targets that choose for ever": (
        json.dumps(peft_config(target_modules="(q_proj|q_proj)*")).encode(),
        "may never end",
    ),
    "targets that refer back": (json.dumps(peft_config(target_modules=r"(.*)\1")).encode(), "may never end"),
    "targets of many stars": (json.dumps(peft_config(target_modules=".*" * 7 + "q_proj")).encode(), "take for ever"),
    "unknown key that is set": (json.dumps(peft_config(use_qalora=True)).encode(), "not handled"),
    "key from the future": (json.dumps(peft_config(use_hyperlora=True)).encode(), "is not known"),
    "use_dora without magnitudes": (json.dumps(peft_config(use_dora=True)).encode(), "contradict"),
    "flag as text": (json.dumps(peft_config(use_rslora="yes")).encode(), "true or false"),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_malformed_weights_are_refused(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights, expected = WEIGHTS[case]
    with pytest.raises(InvalidInput, match=expected) as caught:
        read_adapter_bytes(GOOD_CONFIG, weights)
    assert caught.value.field is not None and caught.value.field.startswith("adapter_")
    assert len(caught.value.message) < 500
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("case", CONFIGS)
def test_malformed_configs_are_refused(case: str) -> None:
    config, expected = CONFIGS[case]
    with pytest.raises(InvalidInput, match=expected) as caught:
        read_adapter_bytes(config, GOOD_WEIGHTS)
    assert caught.value.field is not None and caught.value.field.startswith("adapter_")


def test_the_good_pair_is_accepted_so_each_case_fails_for_its_own_reason() -> None:
    adapter = read_adapter_bytes(GOOD_CONFIG, GOOD_WEIGHTS)
    assert len(adapter.factors) == 4
    assert adapter.parameters == 4 * 4 * (16 + 24)


def test_unset_unknown_keys_are_harmless() -> None:
    """A newer PEFT writes keys this version does not know; unset they change nothing."""
    config = json.dumps(peft_config(some_new_option=None, another=False)).encode()
    assert read_adapter_bytes(config, GOOD_WEIGHTS).config.rank == 4


def test_patterns_that_would_backtrack_for_ever_are_run_and_too_many_are_refused() -> None:
    """Backtracking over long names multiplies; an automaton reads each name once."""
    module = "base_model.model.model." + "a." * 200 + "q_proj"
    tensors = {f"{module}.lora_A.weight": torch.ones(4, 2), f"{module}.lora_B.weight": torch.ones(2, 4)}
    for key, value in (("rank_pattern", {".*a.*a.*b": 4}), ("alpha_pattern", {".*a.*a.*b": 4})):
        config = json.dumps(peft_config(target_modules=["q_proj"], **{key: value})).encode()
        assert read_adapter_bytes(config, save(tensors)).config.target_modules == ("q_proj",)
    config = json.dumps(peft_config(rank_pattern={f"m{index}": 4 for index in range(4001)})).encode()
    with pytest.raises(InvalidInput, match="at most 4000"):
        read_adapter_bytes(config, GOOD_WEIGHTS)
    many = {name.replace("layers.0", f"layers.{index}"): torch.ones(4, 16) if "lora_A" in name else torch.ones(24, 4)
            for index in range(1500) for name in (A, B)}  # fmt: skip
    config = json.dumps(peft_config(target_modules=[f"t{index}" for index in range(15_000)])).encode()
    with pytest.raises(InvalidInput, match="too long to compare"):
        read_adapter_bytes(config, save(many))


def test_every_truncation_and_every_flipped_length_byte_is_refused() -> None:
    for end in range(0, len(GOOD_WEIGHTS), 37):
        with pytest.raises(InvalidInput):
            read_header(GOOD_WEIGHTS[:end])
    for index in range(8):
        flipped = bytearray(GOOD_WEIGHTS)
        flipped[index] ^= 0x55
        with pytest.raises(InvalidInput):
            read_header(bytes(flipped))


def _sized(value: float) -> Adapter:
    """An adapter whose every number is finite and of this size."""
    config, _ = files()
    tensors = {name: torch.where(tensor < 0, -value, value) for name, tensor in random_tensors().items()}
    return read_adapter_bytes(config, save(tensors))


@pytest.mark.parametrize("combination", ["svd", "linear", "cat", "ties_svd", "magnitude_prune"])
@pytest.mark.parametrize(("value", "weight"), [(3e38, 1.0), (1.0, 1e308)])
def test_finite_numbers_that_grow_beyond_floats_are_refused(combination: str, value: float, weight: float) -> None:
    with pytest.raises(InvalidInput, match="too large"):
        merge_adapters([_sized(value), _sized(value)], [weight, weight], combination)


def test_sizes_that_floats_hold_are_compared_and_others_are_refused() -> None:
    with pytest.raises(InvalidInput, match="too large"):
        resize_adapter(_sized(3e38), rank=2)
    for value in (3e38, 1e-45):
        found = compare_adapters(_sized(value), _sized(value))
        assert found.cosine == pytest.approx(1)
        assert found.relative_difference == pytest.approx(0, abs=1e-6)
        assert compare_adapters(_sized(value), _sized(1.0)).relative_difference > 1e6
