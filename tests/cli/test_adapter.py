"""`loralens adapter inspect|resize` on real folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loralens.lab.adapters.adapter import assemble
from loralens.lab.adapters.config import config_from_mapping
from loralens.lab.adapters.files import read_adapter, write_adapter
from loralens.lab.adapters.folder import stored_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An adapter of rank 6 whose update has rank 2."""
    generator = torch.Generator().manual_seed(0)
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    inner = torch.randn(6, 2, generator=generator) @ torch.randn(2, 10, generator=generator)
    tensors = {f"{prefix}.lora_A.weight": inner, f"{prefix}.lora_B.weight": torch.randn(12, 6, generator=generator)}
    config = config_from_mapping({"peft_type": "LORA", "r": 6, "lora_alpha": 12, "target_modules": ["q_proj"]})
    write_adapter(assemble(config, tensors), tmp_path / "mine")
    return tmp_path / "mine"


def test_inspect(run, folder: Path) -> None:
    code, out, _ = run("adapter", "inspect", str(folder), "--json")
    answer = json.loads(out)
    assert code == 0 and answer["ranks"] == [6] and answer["shrink"]["rank"] <= 2
    assert answer["file_bytes"] == stored_bytes(folder) and answer["parameters"] == 6 * 22
    code, out, _ = run("adapter", "inspect", str(folder), "--energy", "0.999")
    assert code == 0 and "could be rank 2 at 0.999" in out and "132 parameters" in out


def test_resize(run, folder: Path, tmp_path: Path) -> None:
    code, out, _ = run("adapter", "resize", str(folder), str(tmp_path / "small"), "--rank", "2", "--json")
    answer = json.loads(out)
    assert code == 0 and answer["relative_error"] < 1e-6 and answer["file_bytes"] == stored_bytes(tmp_path / "small")
    assert read_adapter(tmp_path / "small").config.rank == 2
    code, out, _ = run("adapter", "resize", str(folder), str(tmp_path / "other"), "--energy", "0.5", "--mixed")
    assert code == 0 and "relative error" in out


def test_olora_becomes_plain_by_its_base(run, folder: Path, tmp_path: Path) -> None:
    weight = torch.randn(12, 10, generator=torch.Generator().manual_seed(1))
    save_file({"model.layers.0.self_attn.q_proj.weight": weight}, tmp_path / "base.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"init_lora_weights": "olora"}))
    code, _, err = run("adapter", "resize", str(folder), str(tmp_path / "small"), "--rank", "2")
    assert code == 2 and "loralens adapter plain" in err
    words = ("adapter", "plain", str(folder), str(tmp_path / "plain"), "--base", str(tmp_path / "base.safetensors"))
    code, out, _ = run(*words)
    assert code == 0 and "OLoRA to plain LoRA: 1 modules, rank 12" in out
    plain = read_adapter(tmp_path / "plain")
    basis, rest = torch.linalg.qr(weight)
    factors = plain.factors["model.layers.0.self_attn.q_proj"]
    trained = read_adapter(folder).factors["model.layers.0.self_attn.q_proj"]
    change = trained.lora_b @ trained.lora_a - basis[:, :6] @ rest[:6]
    assert torch.allclose(factors.lora_b @ factors.lora_a, change, atol=1e-5)
    answer = json.loads(run(*words, "--json")[1])
    assert answer["rank"] == 12 and answer["rounding"] == 0.0
    code, _, err = run("adapter", "plain", str(folder), str(tmp_path / "plain"))
    assert code == 2 and "either" in err


def test_errors_are_one_line_and_leave_nothing(run, folder: Path, tmp_path: Path) -> None:
    for words, expected in (
        (("inspect", str(tmp_path / "nowhere")), "adapter_config.json is missing"),
        (("resize", str(folder), str(tmp_path / "out")), "either rank or energy"),
        (("resize", str(folder), str(tmp_path / "out"), "--rank", "0"), "rank must be from 1"),
        (("resize", str(folder), str(tmp_path), "--rank", "2"), "other than an adapter"),
    ):
        code, out, err = run("adapter", *words)
        assert code == 2 and out == "" and expected in err and "Traceback" not in err
    (folder / "adapter_model.safetensors").write_bytes(b"\x80\x04pickle.....")
    code, _, err = run("adapter", "inspect", str(folder))
    assert code == 2 and "pickle" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_doctor(run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 64, "hidden_size": 10,
        "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}))  # fmt: skip
    code, out, _ = run("adapter", "doctor", str(folder), "--base", str(tmp_path), "--for", "vllm", "--json")
    answer = json.loads(out)
    assert code == 5 and answer["verdict"] == "broken" and answer["findings"][0]["code"] == "shape"
    code, out, _ = run("adapter", "doctor", str(folder))
    assert code == 5 and "fault: the update's entries are" in out and "  do: " in out
    code, _, err = run("adapter", "doctor", str(folder), "--for", "nothing")
    assert code == 2 and "one of peft, vllm" in err


def test_merge_and_compare(run, folder: Path, tmp_path: Path) -> None:
    code, out, _ = run(
        "adapter", "merge", str(folder), str(folder), "--into", str(tmp_path / "both"), "--type", "cat", "--json"
    )
    answer = json.loads(out)
    assert code == 0 and answer["rank"] == 12 and answer["file_bytes"] == stored_bytes(tmp_path / "both")
    code, out, _ = run("adapter", "compare", str(folder), str(tmp_path / "both"))
    assert code == 0 and "cosine of the updates 1.0000" in out and "q_proj" in out
    code, _, err = run("adapter", "merge", str(folder), "--into", str(tmp_path / "one"))
    assert code == 2 and "2 to 32" in err and not (tmp_path / "one").exists()
    code, _, err = run("adapter", "merge", str(folder), str(folder), "--into", str(tmp_path / "x"), "--weights", "1,a")
    assert code == 2 and "'a' is not a number" in err


def test_extract(run, tmp_path: Path) -> None:
    for name, value in (("base", 0.0), ("tuned", 1.0)):
        (tmp_path / name).mkdir()
        save_file(
            {"model.layers.0.mlp.up_proj.weight": torch.full((4, 6), value)}, tmp_path / name / "model.safetensors"
        )
    words = ("adapter", "extract", str(tmp_path / "base"), str(tmp_path / "tuned"), str(tmp_path / "out"))
    code, out, _ = run(*words, "--rank", "2")
    assert code == 0 and "100.0000% of the change kept" in out
    assert read_adapter(tmp_path / "out").config.rank == 2


def test_convert(run, folder: Path, tmp_path: Path) -> None:
    code, out, _ = run(
        "adapter", "convert", str(folder), str(tmp_path / "mlx"), "--to", "mlx", "--base", "llama-3.1-8b"
    )
    assert code == 0 and "peft to mlx: 1 modules" in out and "read back: bit for bit" in out
    assert json.loads((tmp_path / "mlx" / "adapter_config.json").read_text())["num_layers"] == 32
    code, out, _ = run("adapter", "convert", str(tmp_path / "mlx"), str(tmp_path / "back"), "--to", "peft", "--json")
    assert code == 0 and json.loads(out)["exact"]
    code, _, err = run("adapter", "convert", str(folder), str(tmp_path / "x"), "--to", "kohya")
    assert code == 2 and "diffusion models" in err and not (tmp_path / "x").exists()


def test_inspect_another_kind(run, tmp_path: Path) -> None:
    save_file({"base_model.model.q_proj.ia3_l": torch.ones(1, 16)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    code, out, _ = run("adapter", "inspect", str(tmp_path))
    assert code == 0 and out.startswith("IA3. (IA)³") and "16 parameters trained" in out
    code, out, _ = run("adapter", "inspect", str(tmp_path), "--json")
    assert code == 0 and json.loads(out)["parameters"] == 16


def test_the_doctor_says_what_merging_into_four_bits_costs(run, folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    save_file({"model.layers.0.self_attn.q_proj.weight": torch.randn(12, 10) * 0.02}, base / "model.safetensors")
    (base / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 1,
                                                  "num_attention_heads": 2, "vocab_size": 16}))  # fmt: skip
    _, told, _ = run("adapter", "doctor", str(folder), "--base", str(base), "--base-packing", "nf4", "--json")
    (one,) = json.loads(told)["merging"]
    assert one["sixteen_bits"] < one["packed_again"]
    assert run("adapter", "doctor", str(folder), "--base-packing", "nf4")[0] == 2
    assert run("adapter", "doctor", str(folder), "--base-packing", "int3")[0] == 2
