"""Every type of PEFT is named, and the trained parameters are those that PEFT counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.folder import CONFIG_FILE, WEIGHTS_FILE
from loralens.lab.adapters.kinds import KINDS, Identified, identify_files

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")  # what PEFT says about its own defaults

SETTINGS: dict[str, dict[str, Any]] = {
    "ADALORA": {"total_step": 10, "init_r": 4, "target_r": 2},
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 4},
    "FOURIERFT": {"n_frequency": 20},
    "WAVEFT": {"n_frequency": 20},
    "IA3": {"feedforward_modules": ["b_proj"]},
    "OFT": {"oft_block_size": 4},
    "VBLORA": {"num_vectors": 8, "vector_length": 4, "r": 4},
    "MISS": {"r": 4},
    "SHIRA": {"r": 2},
    "LN_TUNING": {"target_modules": ["norm"]},
    "TRAINABLE_TOKENS": {"target_modules": ["table"], "token_indices": [1, 2, 5]},
} | {name: {} for name in (
    "BEFT", "DEFT", "DELORA", "GLORA", "GRALORA", "HIRA", "HRA", "LOHA", "LOKR", "RANDLORA", "SUPERTUNING", "TINYLORA",
    "UNILORA", "VERA", "PVERA", "FROD", "OSF", "PEANUT", "POLY",
)}  # fmt: skip


class Small(torch.nn.Module):
    """Two linear layers, a norm and a table."""

    def __init__(self) -> None:
        super().__init__()
        self.a_proj = torch.nn.Linear(16, 16)
        self.b_proj = torch.nn.Linear(32, 16)
        self.norm = torch.nn.LayerNorm(16)
        self.table = torch.nn.Embedding(8, 16)


def identify(folder: Path) -> Identified | None:
    return identify_files(folder / CONFIG_FILE, folder / WEIGHTS_FILE)


def test_every_type_is_explained_in_chinese() -> None:
    chinese = Path(__file__).parents[3] / "frontend/src/features/adapters/kinds.zh-CN.json"
    assert json.loads(chinese.read_text("utf-8")).keys() == KINDS.keys()


def test_every_type_with_a_tuner_is_known() -> None:
    assert set(map(str, peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING)) <= {f"PeftType.{name}" for name in KINDS} | set(
        KINDS
    )


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_counts_are_pefts(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(name)]
    model = peft.get_peft_model(Small(), config(**{"target_modules": ["a_proj", "b_proj"]} | SETTINGS[name]))
    model.save_pretrained(tmp_path)
    found = identify(tmp_path)
    assert found is not None and found.peft_type == name and KINDS[name].counted and found.says
    assert found.parameters == model.get_nb_trainable_parameters()[0]


def test_lora_with_more_is_named_and_plain_lora_is_not(tmp_path: Path) -> None:
    save_file({"base_model.model.x.lora_A.weight": torch.ones(2, 3)}, tmp_path / "adapter_model.safetensors")
    place = tmp_path / "adapter_config.json"
    for settings, besides in (({}, None), ({"use_qalora": True}, ["use_qalora"])):
        place.write_text(json.dumps({"peft_type": "LORA", "r": 2, **settings}))
        found = identify(tmp_path)
        assert (None if found is None else found.besides) == besides
    place.write_text('{"peft_type": "NEVER"}')
    with pytest.raises(InvalidInput, match="lists no type 'NEVER'"):
        identify(tmp_path)
