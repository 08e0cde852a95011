"""The oracle of the architecture tests: transformers' own models on the meta device, and PEFT's own adapters on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loralens.core.architecture.registry import media_class

# The class that each family is trained with; all others are causal language models.
HEADS = {
    "bert": "BertForMaskedLM",
    "t5": "T5ForConditionalGeneration",
    "vit": "ViTForImageClassification",
    "whisper": "WhisperForConditionalGeneration",
    "modernbert": "ModernBertForMaskedLM",
    "distilbert": "DistilBertForMaskedLM",
    "roberta": "RobertaForMaskedLM",
    "camembert": "CamembertForMaskedLM",
    "xlm-roberta": "XLMRobertaForMaskedLM",
    "electra": "ElectraForMaskedLM",
    "mpnet": "MPNetForMaskedLM",
    "layoutlm": "LayoutLMForMaskedLM",
    "deberta": "DebertaForMaskedLM",
    "deberta-v2": "DebertaV2ForMaskedLM",
    "bart": "BartForConditionalGeneration",
    "mbart": "MBartForConditionalGeneration",
    "pegasus": "PegasusForConditionalGeneration",
    "m2m_100": "M2M100ForConditionalGeneration",
}
NO_MODEL = {"qwen"}  # its code lives on the Hub, and is not retold


def meta_model(config: Mapping[str, Any]) -> Any:
    """The real model without memory behind it."""
    import torch
    import transformers

    from loralens.lab.trace import hub

    if media_class(config) is not None or hub.config_class(config["model_type"]):
        return whole_model(config)
    entries = dict(config.get("text_config") or config)
    family = entries.pop("model_type")
    for name in ("architectures", "torch_dtype"):
        entries.pop(name, None)
    read = transformers.AutoConfig.for_model(family, **entries)
    with torch.device("meta"):
        if family in HEADS:
            return getattr(transformers, HEADS[family])(read)
        if type(read) not in transformers.AutoModelForCausalLM._model_mapping:  # only made together with its tower
            whole = whole_model(config)
            del whole.model.visual
            return whole
        return transformers.AutoModelForCausalLM.from_config(read)


def whole_model(config: Mapping[str, Any]) -> Any:
    """A multimodal model with its vision tower, or one whose code lies beside its weights as it is retold, without memory behind it."""
    import torch
    import transformers

    from loralens.lab.trace import hub

    entries = {name: value for name, value in config.items() if name not in ("model_type", "architectures")}
    told = hub.config_class(config["model_type"])
    read = told(**entries) if told else transformers.AutoConfig.for_model(config["model_type"], **entries)
    with torch.device("meta"):
        if told:
            return hub.model_class(read)._from_config(read)
        return transformers.AutoModelForImageTextToText.from_config(read)


def total(model: Any) -> int:
    """Parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def with_layers(config: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """The same config with fewer layers, so that PEFT takes a moment instead of a minute."""
    result = dict(config)
    if isinstance(result.get("text_config"), Mapping):
        result["text_config"] = with_layers(result["text_config"], layers)
        for part in ("vision_config", "audio_config"):
            if isinstance(result.get(part), Mapping):
                result[part] = with_layers(result[part], layers)
        return result
    for name in (
        "num_hidden_layers",
        "n_layer",
        "n_layers",
        "num_layers",
        "depth",
        "num_decoder_layers",
        "encoder_layers",
        "decoder_layers",
    ):
        if name in result:
            result[name] = min(layers, result[name])
    for name in ("layer_types", "no_rope_layers", "mlp_layer_types", "moe_layer_freq"):
        if isinstance(result.get(name), list):
            result[name] = result[name][:layers]
    if isinstance(result.get("sparse_attention_config"), Mapping):  # which layers attend to blocks (MiniMax-M3)
        inside = dict(result["sparse_attention_config"])
        result["sparse_attention_config"] = {
            **inside,
            "sparse_attention_freq": inside["sparse_attention_freq"][:layers],
        }
    if "first_k_dense_replace" in result:
        result["first_k_dense_replace"] = min(1, result["first_k_dense_replace"])
    return result
