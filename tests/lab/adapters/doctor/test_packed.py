"""What merging into NF4 costs: packed as bitsandbytes packs, merged as PEFT merges."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lab.adapters.doctor.test_planted import LLAMA, SHAPES, config, healthy, spoken, write
from safetensors.torch import save_file

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.doctor import diagnose
from loralens.lab.adapters.doctor.base import base_of
from loralens.lab.adapters.doctor.packed import nf4
from loralens.lab.adapters.stream import Weights


def _base(folder: Path) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    weights = {
        f"model.layers.{layer}.{name}.weight": (torch.randn(out, inside, generator=generator) * 0.02).bfloat16()
        for layer in range(2)
        for name, (inside, out) in SHAPES.items()
    }
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    return weights


@pytest.mark.parametrize("shape", [(64, 128), (16, 24), (3, 64), (5, 7)])
def test_nf4_is_that_of_bitsandbytes(shape: tuple[int, int]) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    packed, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=False)
    assert torch.allclose(nf4(weight), functional.dequantize_4bit(packed, state), rtol=0, atol=1e-6)


def test_the_errors_are_those_of_merging_as_peft_does(tmp_path: Path) -> None:
    weights, tensors = _base(tmp_path / "base"), healthy()
    folder = write(tmp_path / "adapter", tensors, config())
    found = diagnose(folder, base_of(config=LLAMA), packed=Weights(tmp_path / "base"))
    assert len(found.merging) == 6
    for one in found.merging:
        stem = f"base_model.model.{one.module}"
        update = tensors[f"{stem}.lora_B.weight"].float() @ tensors[f"{stem}.lora_A.weight"].float()
        original = weights[f"{one.module}.weight"].float()
        wanted = nf4(original) + update
        size = update.norm()
        assert one.packed_again == pytest.approx(float((nf4(wanted) - wanted).norm() / size), rel=1e-5)
        assert one.into_the_original == pytest.approx(
            float(((original + update).bfloat16() - wanted).norm() / size), rel=1e-5
        )
        assert one.sixteen_bits < one.packed_again
    said = next(finding for finding in found.findings if finding.code == "packed_merge")
    spoken(said)
    assert found.to_dict()["merging"][0].keys() == {"module", "packed_again", "sixteen_bits", "into_the_original"}


def test_a_base_that_is_packed_or_another_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "adapter", healthy(), config())
    (tmp_path / "packed").mkdir()
    save_file(
        {"model.layers.0.self_attn.q_proj.weight": torch.zeros(128, 1, dtype=torch.uint8)},
        tmp_path / "packed" / "model.safetensors",
    )
    with pytest.raises(InvalidInput, match="packed already"):
        diagnose(folder, packed=Weights(tmp_path / "packed"))
    (tmp_path / "other").mkdir()
    save_file({"x.weight": torch.zeros(2, 2)}, tmp_path / "other" / "model.safetensors")
    with pytest.raises(InvalidInput, match="none of the adapter"):
        diagnose(folder, packed=Weights(tmp_path / "other"))
