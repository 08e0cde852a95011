"""The tiny model is a real Llama: transformers and PEFT are the oracles."""

from __future__ import annotations

import pytest
import torch

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.config import AdapterConfig
from loralens.lab.tiny.lora import (
    adapter_state,
    base_hash,
    inject_lora,
    lora_layers,
)
from loralens.lab.tiny.model import LINEAR_NAMES, TinyConfig, TinyLM, parameter_count
from loralens.lab.tiny.train import generate

# PEFT 0.21 reads a property that transformers 5.23 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

CONFIGS = [
    TinyConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, max_position_embeddings=32),
    TinyConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        max_position_embeddings=32,
    ),
]


def build(config: TinyConfig = CONFIGS[0]) -> TinyLM:
    torch.manual_seed(0)
    return TinyLM(config)


def ids(config: TinyConfig = CONFIGS[0]) -> torch.Tensor:
    return torch.randint(config.vocab_size, (3, 17), generator=torch.Generator().manual_seed(1))


def llama(config: TinyConfig):  # type: ignore[no-untyped-def]
    transformers = pytest.importorskip("transformers")
    hf = {k: v for k, v in config.to_hf().items() if k not in ("architectures", "model_type", "torch_dtype")}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**hf, attn_implementation="sdpa")).eval()


def perturb(model: TinyLM, rank: int = 4) -> None:
    inject_lora(model, rank=rank, alpha=8, targets=("q_proj", "down_proj"), seed=3)
    generator = torch.Generator().manual_seed(4)
    for layer in lora_layers(model).values():
        layer.lora_b.data = torch.randn(layer.lora_b.shape, generator=generator) * 0.1


@pytest.mark.parametrize("config", CONFIGS)
def test_transformers_loads_the_state_and_agrees(config: TinyConfig) -> None:
    model, oracle = build(config), llama(config)
    oracle.load_state_dict(model.state_dict(), strict=True)
    torch.testing.assert_close(model(ids(config)), oracle(ids(config)).logits, rtol=1e-5, atol=1e-5)
    assert parameter_count(model) == sum(p.numel() for p in oracle.parameters())


@pytest.mark.parametrize("config", CONFIGS)
def test_cache_gives_the_same_logits_as_one_pass(config: TinyConfig) -> None:
    model, batch = build(config), ids(config)
    whole = model(batch)
    logits, cache = model.step(batch[:, :5])
    torch.testing.assert_close(logits, whole[:, 4], rtol=1e-5, atol=1e-5)
    logits, cache = model.step(batch[:, 5:9], cache)  # several tokens at once on top of a cache
    torch.testing.assert_close(logits, whole[:, 8], rtol=1e-5, atol=1e-5)
    logits, cache = model.step(batch[:, 9:10], cache)
    torch.testing.assert_close(logits, whole[:, 9], rtol=1e-5, atol=1e-5)


def test_greedy_generation_is_that_of_transformers() -> None:
    model, oracle = build(), llama(CONFIGS[0])
    oracle.load_state_dict(model.state_dict())
    prompt = [1, 2, 3]
    wanted = oracle.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, 3),
        max_new_tokens=10,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )[0, 3:].tolist()
    assert list(generate(model, prompt, tokens=10)) == wanted


def test_peft_loads_our_adapter_and_agrees() -> None:
    peft = pytest.importorskip("peft")
    model, oracle = build(), llama(CONFIGS[0])
    oracle.load_state_dict(model.state_dict())
    perturb(model)
    config = peft.LoraConfig(**AdapterConfig(4, 8, ("down_proj", "q_proj")).to_peft())
    wrapped = peft.get_peft_model(oracle, config)
    odd = peft.set_peft_model_state_dict(wrapped, adapter_state(model))
    assert not odd.unexpected_keys
    torch.testing.assert_close(model(ids()), wrapped(ids()).logits, rtol=1e-5, atol=1e-5)
    assert adapter_state(model).keys() == peft.get_peft_model_state_dict(wrapped).keys()


def test_we_load_pefts_adapter_and_agree() -> None:
    peft = pytest.importorskip("peft")
    model, oracle = build(), llama(CONFIGS[0])
    oracle.load_state_dict(model.state_dict())
    wrapped = peft.get_peft_model(
        oracle, peft.LoraConfig(r=3, lora_alpha=12, target_modules=["v_proj"], init_lora_weights=False)
    )
    inject_lora(model, rank=3, alpha=12, targets=("v_proj",))
    theirs = peft.get_peft_model_state_dict(wrapped)
    for path, layer in lora_layers(model).items():
        layer.lora_a.data = theirs[f"base_model.model.{path}.lora_A.weight"]
        layer.lora_b.data = theirs[f"base_model.model.{path}.lora_B.weight"]
    torch.testing.assert_close(model(ids()), wrapped(ids()).logits, rtol=1e-5, atol=1e-5)


def test_fresh_adapter_and_rank_zero_are_the_base_to_the_bit() -> None:
    wanted = build()(ids())
    for rank in (0, 8):
        model = build()
        inject_lora(model, rank=rank, targets=LINEAR_NAMES)
        assert torch.equal(model(ids()), wanted)


def test_update_is_scaling_times_b_times_a() -> None:
    model, plain = build(), build()
    perturb(model)
    for path, layer in lora_layers(model).items():
        plain.get_submodule(path).weight.data += 2.0 * layer.lora_b.data @ layer.lora_a.data
    torch.testing.assert_close(model(ids()), plain(ids()), rtol=1e-5, atol=1e-5)


def test_training_an_adapter_leaves_the_base_to_the_byte() -> None:
    base, model = build(), build()
    perturb(model)
    assert base_hash(model) == base_hash(base)


def test_only_the_adapter_trains() -> None:
    model = build()
    inject_lora(model, rank=4, targets=("q_proj", "v_proj"))
    assert parameter_count(model, trainable=True) == 2 * 2 * 4 * (32 + 32)
    model(ids()).sum().backward()
    assert all(p.grad is None for n, p in model.named_parameters() if "lora_" not in n)


@pytest.mark.parametrize(
    ("rank", "targets", "field"),
    [(-1, ("q_proj",), "rank"), (33, ("q_proj",), "rank"), (4, ("nope",), "target_modules"), (4, (), "target_modules")],
)
def test_bad_lora_arguments(rank: int, targets: tuple[str, ...], field: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        inject_lora(build(), rank=rank, targets=targets)
    assert raised.value.field == field


def test_sequences_over_the_models_length_are_refused() -> None:
    with pytest.raises(InvalidInput, match="position 33"):
        build()(torch.zeros(1, 33, dtype=torch.int64))


@pytest.mark.parametrize("sizes", [{"hidden_size": 30}, {"num_key_value_heads": 3}])
def test_sizes_that_do_not_divide_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        TinyConfig(**sizes)
