"""The hub's adapters in PEFT and PEFT's in the hub, on the same base; and a hub over a local Hugging Face model."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from loralens.core.errors import InvalidInput, NotFound
from loralens.lab.adapters.base import LocalBase, TinyBase
from loralens.lab.adapters.hub import Hub
from loralens.lab.adapters.service import HubService
from loralens.lab.adapters.tasks import TASKS, held_out_facts, prompt_for

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

PROMPT = prompt_for(held_out_facts()[0].request)


def _llama(folder: Path) -> Any:
    """The hub's base as transformers' own Llama."""
    config = json.loads((folder / "config.json").read_text())
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**{k: v for k, v in config.items() if k != "torch_dtype"})
    )
    state = TinyBase(folder).module.state_dict()
    model.load_state_dict(state, strict=True)
    return model.eval()


def test_adapters_trained_here_give_the_same_logits_in_peft(hub: Hub, hub_folder: Path) -> None:
    ids = torch.tensor([hub.base.encode(PROMPT)])
    for task in TASKS[:3]:
        model = peft.PeftModel.from_pretrained(_llama(hub_folder), hub_folder / "adapters" / task.name).eval()
        with torch.no_grad():
            expected = model(ids).logits[0, -1]
        got = hub.logits(PROMPT, task.name)
        assert torch.allclose(got, expected, rtol=0, atol=1e-6 * float(expected.abs().max().clamp(min=1)))
        assert not torch.allclose(hub.logits(PROMPT, None), expected, atol=1e-4)


@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_made_by_peft_gives_the_same_logits_in_the_hub(
    hub: Hub, hub_folder: Path, tmp_path: Path, rslora: bool
) -> None:
    config = peft.LoraConfig(
        r=5,
        lora_alpha=7,
        target_modules="all-linear",
        use_rslora=rslora,
        rank_pattern={"o_proj": 2},
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(_llama(hub_folder), config).eval()
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1, generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path / "theirs")
    hub.load("theirs", tmp_path / "theirs")
    with torch.no_grad():
        expected = model(torch.tensor([hub.base.encode(PROMPT)])).logits[0, -1]
    got = hub.logits(PROMPT, "theirs")
    assert torch.allclose(got, expected, rtol=0, atol=1e-6 * float(expected.abs().max().clamp(min=1)))


@pytest.mark.filterwarnings("ignore:`lora_bias=True`")
@pytest.mark.filterwarnings("ignore:Adapter .default.. .* LoRA tensor.s. have invalid shape")
@pytest.mark.parametrize("changes", [{"use_dora": True}, {"use_dora": True, "use_rslora": True}, {"lora_bias": True}])
def test_an_adapter_that_factors_do_not_say_whole_is_switched_to_by_copies(
    changes: dict[str, bool], hub: Hub, hub_folder: Path, tmp_path: Path
) -> None:
    config = peft.LoraConfig(r=3, lora_alpha=7, target_modules="all-linear", task_type="CAUSAL_LM", **changes)
    model = peft.get_peft_model(_llama(hub_folder), config).eval()
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "magnitude" in name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(tmp_path / "whole")
    before = hub.base_sha256()
    hub.load("whole", tmp_path / "whole")
    with torch.no_grad():
        expected = model(torch.tensor([hub.base.encode(PROMPT)])).logits[0, -1]
    near = 1e-5 * float(expected.abs().max().clamp(min=1))
    assert torch.allclose(hub.logits(PROMPT, "whole"), expected, rtol=0, atol=near)
    for way in ("index", "pointer", "file", "merge"):
        assert hub.switch("whole", way).way == "merge"
        assert torch.allclose(hub.logits(PROMPT), expected, rtol=0, atol=near)
    other = TASKS[0].name
    with pytest.raises(InvalidInput, match="shares no batch"):
        next(hub.stream(PROMPT, ["whole", other], tokens=1))
    assert hub.generate(PROMPT, "whole", tokens=3)
    hub.switch(other)
    assert not torch.allclose(hub.logits(PROMPT), expected, atol=1e-3)
    hub.unload("whole")
    assert hub.base_sha256() == before and hub.verify(PROMPT).base_unchanged


@pytest.mark.filterwarnings("ignore::UserWarning")  # what PEFT says about its own defaults
def test_adalora_is_switched_to_as_lora(hub: Hub, hub_folder: Path, tmp_path: Path) -> None:
    settings = {"init_r": 4, "target_r": 2, "total_step": 9, "lora_alpha": 7, "target_modules": ["q_proj", "up_proj"]}
    model = peft.get_peft_model(_llama(hub_folder), peft.AdaLoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(tmp_path / "adaptive")
    hub.load("adaptive", tmp_path / "adaptive")
    with torch.no_grad():
        expected = model(torch.tensor([hub.base.encode(PROMPT)])).logits[0, -1]
    near = 1e-5 * float(expected.abs().max().clamp(min=1))
    for way in ("index", "pointer", "file", "merge"):
        hub.switch("adaptive", way)
        assert torch.allclose(hub.logits(PROMPT), expected, rtol=0, atol=near)
    assert not torch.allclose(hub.logits(PROMPT, None), expected, atol=1e-3)


@pytest.fixture
def models(hub_folder: Path, tmp_path: Path) -> Path:
    """A registry folder with one Hugging Face model, its tokenizer and something else."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    registry = tmp_path / "models"
    _llama(hub_folder).save_pretrained(registry / "my-llama")
    words = {
        word: index
        for index, word in enumerate(["<unk>", "<end>", "the", "report", "is", "late", "ready", "now", "Anna", "Ben"])
    }
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(
        registry / "my-llama"
    )
    (registry / "other").mkdir()
    return registry


def test_a_hub_over_a_local_model(hub_folder: Path, models: Path) -> None:
    local = Hub(LocalBase(models / "my-llama"))
    before = local.base_sha256()
    for task in TASKS[:2]:
        local.load(task.name, hub_folder / "adapters" / task.name)
    one, two = (local.logits("the report is late", task.name) for task in TASKS[:2])
    assert not torch.equal(one, two) and torch.equal(one, local.logits("the report is late", TASKS[0].name))
    rows = [task.name for task in TASKS[:2]]
    texts = ["", ""]
    for token in local.stream("the report is", rows, tokens=4):
        texts[token.row] += token.text
    assert texts == [local.generate("the report is", row, tokens=4) for row in rows]
    assert local.base_sha256() == before
    assert local.storage().base_bytes == (models / "my-llama" / "model.safetensors").stat().st_size


def test_models_are_found_by_name_only(models: Path, tmp_path: Path) -> None:
    service = HubService(tmp_path / "state", None, models)
    assert service.state()["bases"] == ["loralens-tiny", "my-llama"]
    assert service.use("my-llama").base.name == "my-llama"
    for name in ("other", "../models/my-llama", str(models / "my-llama"), "", "my-llama/"):
        with pytest.raises(NotFound):
            service.use(name)
    (models / "other" / "config.json").write_text("{}")
    with pytest.raises(InvalidInput, match="not a model folder"):
        LocalBase(models / "other")
