"""Operations per token against PyTorch's own counter on real models, forward and backward."""

import pytest
from core.architecture.test_more_families import HYBRIDS, MIXTURES, SWITCHED
from core.architecture.test_multimodal import CASES, config_of

from loralens.core.errors import UnsupportedArchitecture
from loralens.planner.changes import CHANGES
from loralens.planner.network import network_of
from loralens.planner.question import read_question
from loralens.planner.work import keys_per_token, reasons, training_work

BATCH, LENGTH = 2, 48
CONFIGS = {
    "llama": {"model_type": "llama", "num_key_value_heads": 4},
    "grouped": {"model_type": "mistral", "num_key_value_heads": 2},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2, "tie_word_embeddings": True},
}
COMMON = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 300,
    "max_position_embeddings": 64,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}


def counted(config: dict[str, object], method: str, checkpointing: bool) -> int:
    """What torch's FlopCounterMode counts for one step of the real Hugging Face model with eager attention."""
    import peft
    import torch
    import transformers
    from torch.utils.flop_counter import FlopCounterMode

    built = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config), attn_implementation="eager"
    )
    if method == "lora":
        built = peft.get_peft_model(built, peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj"]))
        built.enable_input_require_grads()  # else the first layer's inputs need no gradient
    if checkpointing:
        built.activation_checkpointing_enable({"use_reentrant": False})
    built.train()
    ids = torch.randint(0, 300, (BATCH, LENGTH))
    with FlopCounterMode(display=False) as counter:
        built(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return counter.get_total_flops()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT 0.21 asks for it
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", CONFIGS)
def test_operations_equal_what_torch_counts(name: str, method: str, checkpointing: bool) -> None:
    config = COMMON | CONFIGS[name]
    recipe = {"sequence_length": LENGTH, "attention": "eager", "lora": {"rank": 8}}
    question, _ = read_question({"config": config, "method": method, "recipe": recipe})
    work = training_work(network_of(question), gradient_checkpointing=checkpointing)
    # a non-reentrant checkpoint stops before the layer's last product: nothing saved comes after it
    skipped = BATCH * LENGTH * 3 * 2 * 64 * 160 if checkpointing else 0
    assert counted(config, method, checkpointing) == work.total * BATCH * LENGTH - skipped


OTHERS = {  # tokens of a sample, and operations that no input gradient needs, per sample
    "t5": (
        {"d_model": 64, "d_kv": 8, "d_ff": 160, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4},
        LENGTH,
        0,
    ),
    "llama4_text": (
        {**COMMON, "head_dim": 16, "num_key_value_heads": 2, "intermediate_size_mlp": 96, "num_local_experts": 3,
         "interleave_moe_layer_step": 2, "pad_token_id": 0},
        LENGTH,
        0,
    ),
    "vit": (
        {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
         "image_size": 32, "patch_size": 8},
        17,
        2 * 16 * 3 * 64 * 64,
    ),
    "whisper": (
        {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
         "decoder_attention_heads": 4, "encoder_ffn_dim": 160, "decoder_ffn_dim": 96, "num_mel_bins": 10,
         "max_source_positions": 20, "max_target_positions": LENGTH, "pad_token_id": 0, "bos_token_id": 0,
         "eos_token_id": 0, "decoder_start_token_id": 0},
        LENGTH,
        2 * 40 * 10 * 64 * 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", OTHERS)
def test_encoders_and_experts_that_see_everything(family: str) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from loralens.lab.trace import build, families

    shape, tokens, needless = OTHERS[family]
    config = {"model_type": family, "vocab_size": 300, "dropout_rate": 0.0, **shape}
    real = build.read_config(config)
    built = families.model_class(real)._from_config(real, attn_implementation="eager").train()
    batch = {
        name: torch.rand(value.shape) if value.is_floating_point() else torch.zeros(value.shape, dtype=value.dtype)
        for name, value in families.inputs(
            real, BATCH, LENGTH, padded=False, dtype=torch.float32, device="meta"
        ).items()
    }
    with FlopCounterMode(display=False) as counter:
        built(**batch).loss.backward()
    recipe = {"sequence_length": LENGTH, "attention": "eager"}
    question, _ = read_question({"config": config, "method": "full", "recipe": recipe})
    work = training_work(network_of(question))
    assert work.total * BATCH * tokens - BATCH * needless == pytest.approx(counter.get_total_flops(), rel=1e-5)


COUNTED = {
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "attn_layer_indices": [1], "mamba_chunk_size": 16},
    "qwen3_5_text": {"head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
                     "linear_value_head_dim": 16, "full_attention_interval": 3},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False},
    "mamba": {"state_size": 8, "expand": 2, "intermediate_size": 128},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("family", COUNTED)
def test_what_a_hybrid_multiplies_is_what_torch_counts(family: str) -> None:
    """Attention in the layers that have it, and the products of scans; torch counts a depthwise convolution as a whole one."""
    import transformers
    from torch.utils.flop_counter import FlopCounterMode

    from loralens.lab.trace import families

    config = {**COMMON, "model_type": family, "num_key_value_heads": 2, "pad_token_id": 0, **COUNTED[family]}
    entries = {name: value for name, value in config.items() if name != "model_type"}
    real = transformers.AutoConfig.for_model(family, **entries)
    built = families.model_class(real)._from_config(real, attn_implementation="eager").train()
    tokens = families.inputs(real, BATCH, LENGTH, padded=False, dtype=None, device="cpu")
    ids = {name: value.zero_() for name, value in tokens.items()}
    with FlopCounterMode(display=False) as counter:
        built(**ids, use_cache=False).loss.backward()
    recipe = {"sequence_length": LENGTH, "attention": "eager", "autocast": None, "weights_dtype": "float32"}
    question, _ = read_question({"config": config, "method": "full", "recipe": recipe})
    work = training_work(network_of(question))
    products = sum(done for name, done in counter.get_flop_counts()["Global"].items() if "convolution" not in str(name))
    assert work.total * BATCH * LENGTH == pytest.approx(products, rel=0.03)


def test_a_causal_kernel_meets_half_of_the_keys() -> None:
    assert keys_per_token(1000, None, causal=True) == 500.5
    assert keys_per_token(1000, None, causal=False) == 1000


def test_a_window_bounds_the_keys() -> None:
    assert keys_per_token(100, 10, causal=True) == sum(min(position, 10) for position in range(1, 101)) / 100


def test_a_mixture_counts_the_experts_that_a_token_visits() -> None:
    config = COMMON | {"model_type": "mixtral", "num_key_value_heads": 4, "num_local_experts": 8}
    for visited in (1, 2):
        question, _ = read_question({"config": config | {"num_experts_per_tok": visited}, "method": "full"})
        attention, router, expert = 4 * 64 * 64, 8 * 64, 3 * 64 * 160
        per_layer = attention + router + visited * expert
        assert network_of(question).matrix_parameters == 3 * per_layer + 300 * 64


@pytest.mark.parametrize(
    ("name", "width", "window"),
    [("7B", 32 * 4096, 1024.5), ("gpt2", 12 * 768, 1024.5), ("bert-base-uncased", 12 * 768, 2048)],
)
def test_attention_is_as_wide_as_its_query_heads(name: str, width: int, window: float) -> None:
    network = network_of(read_question({"model": name, "method": "full"})[0])
    assert (network.attention_width, network.keys_per_token) == (width, window)


def test_every_model_whose_memory_is_known_gets_its_operations() -> None:
    from loralens.core.catalogue import models

    unknown = set()
    families = {entry.family: entry for entry in reversed(models())}  # one of each: the first in the catalogue
    for entry in families.values():
        question, _ = read_question({"model": entry.id, "method": "full"})
        try:
            total = question.estimate().total_parameters
        except UnsupportedArchitecture:
            continue  # its memory is not known either
        try:
            found = network_of(question).matrix_parameters
        except UnsupportedArchitecture:
            unknown.add(entry.id)
        else:
            heard = entry.id == "whisper-large-v3"  # a label token comes with several places of sound
            assert 0 < found <= total * (2.2 if heard else 1)
    assert unknown == set()


@pytest.mark.parametrize(
    "config",
    [
        *({"model_type": name, **one} for name, several in (HYBRIDS | SWITCHED).items() for one in several),
        *({"model_type": name, **one} for name, one in MIXTURES.items()),
        *map(config_of, CASES),
    ],
    ids=lambda config: config["model_type"],
)
def test_every_family_gets_its_operations(config) -> None:
    question, _ = read_question({"config": config, "method": "full"})
    try:
        total = question.estimate().total_parameters
    except UnsupportedArchitecture:
        return  # its memory is not known either
    assert 0 < network_of(question).matrix_parameters <= 2.2 * total


@pytest.mark.parametrize(
    ("method", "more", "said"),
    [("full", 1 / 3, "a third more operations for full fine-tuning"), ("lora", 1 / 2, "about half more for LoRA")],
)
def test_what_checkpointing_is_said_to_cost_is_what_it_costs(method, more, said):
    question, _ = read_question({"model": "llama-2-7b", "method": method})
    network = network_of(question)
    plain, again = (training_work(network, gradient_checkpointing=on).total for on in (False, True))
    assert again / plain - 1 == pytest.approx(more, abs=0.03)
    assert said in next(change.en for change in CHANGES if change.field == "gradient_checkpointing")


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_reasons_name_the_forward_pass_that_checkpointing_adds(method):
    plain, again = reasons(method), reasons(method, gradient_checkpointing=True)
    assert again["en"].removeprefix(plain["en"]) == " Gradient checkpointing runs the forward pass again: two more."
    assert again["zh"].removeprefix(plain["zh"]).endswith("另加 2 次。")
