"""Methods: what trains, how the base is packed, what is added."""

import pytest

from loralens import estimate
from loralens.core.errors import InvalidInput
from loralens.core.methods.packing import packing_for
from loralens.core.question.quantization import Quantization
from loralens.core.tape.parameter import Parameter

SMALL = {
    "model_type": "llama", "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "vocab_size": 1000,
    "num_attention_heads": 8, "num_key_value_heads": 4,
}  # fmt: skip


@pytest.mark.parametrize("double_quant", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("shape", [(64, 64), (704, 256), (256, 1024)])
def test_packed_bytes_equal_bitsandbytes(kind, double_quant, shape):
    import torch
    from bitsandbytes import functional

    packed, state = functional.quantize_4bit(torch.randn(shape), compress_statistics=double_quant, quant_type=kind)
    tensors = [packed, state.absmax, state.code]
    if double_quant:
        tensors += [state.offset, state.state2.absmax, state.state2.code]
    expected = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    parameter = Parameter(shape)
    packing = packing_for(Quantization(type=kind, double_quant=double_quant))
    assert packing.bytes(parameter).at(1, 1, 1) == expected


def test_eight_bits_and_groups():
    parameter = Parameter((512, 1024))
    assert packing_for(Quantization(type="int8")).bytes(parameter).at(1, 1, 1) == 512 * 1024 + 512 * 4
    groups = packing_for(Quantization(type="gptq4", group_size=128)).bytes(parameter).at(1, 1, 1)
    # 4 bits a value; per output and group of 128 inputs 2 bytes of scale and half a byte of zero; 4 bytes an input
    assert groups == 512 * 1024 // 2 + 8 * (512 * 2 + 256) + 1024 * 4
    whole = packing_for(Quantization(type="gptq4", group_size=-1)).bytes(parameter).at(1, 1, 1)
    assert whole == 512 * 1024 // 2 + (512 * 2 + 256) + 1024 * 4


def test_training_the_last_layers():
    per_layer = estimate(SMALL, "full", trainable_layers=1).trainable_parameters
    for layers in range(7):
        found = estimate(SMALL, "full", trainable_layers=layers)
        assert found.trainable_parameters == layers * per_layer
    peaks = [estimate(SMALL, "full", trainable_layers=n, autocast=None).allocated_bytes for n in (1, 3, 6)]
    assert peaks == sorted(peaks)
    assert peaks[-1] < estimate(SMALL, "full", autocast=None).allocated_bytes


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT calls what transformers has renamed
def test_modules_to_save_and_biases_count_as_in_peft():
    import peft
    import torch
    import transformers

    config = transformers.Qwen2Config(
        **{key: value for key, value in SMALL.items() if key != "model_type"}, tie_word_embeddings=False
    )
    for words in ({"modules_to_save": ["lm_head"]}, {"bias": "all"}, {"bias": "lora_only"}, {"use_dora": True}):
        with torch.device("meta"):
            model = transformers.Qwen2ForCausalLM(config)
            adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], **words))
        trainable, total = adapted.get_nb_trainable_parameters()
        lora = {"rank": 4, "target_modules": ["q_proj", "v_proj"], **words}
        found = estimate({**SMALL, "model_type": "qwen2", "tie_word_embeddings": False}, "lora", lora=lora)
        assert (found.trainable_parameters, found.total_parameters) == (trainable, total), words


def test_packing_shrinks_the_weights_only():
    plain, packed = estimate("7B", "lora"), estimate("7B", "qlora")
    assert packed.total_parameters == plain.total_parameters
    assert packed.breakdown["weights_bytes"] < plain.breakdown["weights_bytes"] / 3


def test_lora_on_a_named_packing_is_qlora():
    assert estimate("7B", "lora", quantization="nf4").allocated_bytes == estimate("7B", "qlora").allocated_bytes


def test_several_gpus_hold_shares():
    words = {"optimizer": "adamw_foreach", "autocast": None, "gradient_checkpointing": True}
    one = estimate("7B", "full", **words)
    for gpus in (2, 4, 8):
        sharded = estimate("7B", "full", gpus=gpus, strategy="fsdp", **words)
        assert sharded.breakdown["optimizer_state_bytes"] == pytest.approx(
            one.breakdown["optimizer_state_bytes"] / gpus, rel=1e-6
        )
        assert sharded.allocated_bytes < one.allocated_bytes
    buckets = estimate("7B", "full", gpus=2, strategy="ddp", **words)
    assert buckets.allocated_bytes > one.allocated_bytes
    assert (
        estimate("7B", "full", gpus=8, strategy="zero3", offload="optimizer", **words).to_dict()["peak"]["host_bytes"]
        > 0
    )


def test_unknown_method_is_refused():
    with pytest.raises(InvalidInput):
        estimate("7B", "prefix")
