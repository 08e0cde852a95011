"""Which family a config belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from loralens.core.architecture.causal import Root
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder
from loralens.core.architecture.heads import LM, head_of, labels_of
from loralens.core.architecture.media import Media
from loralens.core.architecture.media_types import MEDIA as MEDIA
from loralens.core.architecture.moe_looped import FUSED_SINCE, SEPARATE, separate
from loralens.core.architecture.nested import text_part, trained_part
from loralens.core.architecture.remote import NO_LOSS, SAME, reason
from loralens.core.catalogue import closest, key, shown
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.question.versions import CURRENT

# model_type -> "module:class" under core.architecture.families; imported when first asked for
FAMILIES: Final[dict[str, str]] = {
    "llama": "llama:Llama",
    "mistral": "llama:Mistral",
    "qwen": "qwen:Qwen",
    "qwen2": "llama:Qwen2",
    "qwen3": "llama:Qwen3",
    "phi3": "phi3:Phi3",
    "gpt2": "gpt2:GPT2",
    "phi": "phi:Phi",
    "gemma": "gemma:Gemma",
    "gemma2": "gemma:Gemma2",
    "gemma3_text": "gemma:Gemma3",
    "starcoder2": "starcoder2:Starcoder2",
    "olmo2": "olmo2:Olmo2",
    "smollm3": "smollm3:SmolLM3",
    "glm": "glm:Glm",
    "glm4": "glm:Glm4",
    "granite": "granite:Granite",
    "gpt_neox": "gpt_neox:GPTNeoX",
    "gptj": "gptj:GPTJ",
    "opt": "opt:OPT",
    "falcon": "falcon:Falcon",
    "bloom": "bloom:Bloom",
    "gpt_bigcode": "gpt_bigcode:GPTBigCode",
    "stablelm": "stablelm:StableLm",
    "cohere": "cohere:Cohere",
    "cohere2": "cohere:Cohere2",
    "bert": "bert:Bert",
    "mamba": "mamba:Mamba",
    "falcon_mamba": "mamba:FalconMamba",
    "t5": "t5:T5",
    "vit": "vit:ViT",
    "whisper": "whisper:Whisper",
    "mixtral": "mixtral:Mixtral",
    "qwen3_moe": "mixtral:Qwen3Moe",
    "gpt_oss": "gpt_oss:GptOss",
    "deepseek_v2": "deepseek:DeepSeekV2",
    "deberta": "deberta:Deberta",
    "deberta-v2": "deberta_v2:DebertaV2",
    "deepseek_v3": "deepseek:DeepSeek",
    "deepseek_v32": "deepseek_sparse:DeepSeekV32",
    "deepseek_v4": "deepseek_v4:DeepSeekV4",
    "glm_moe_dsa": "deepseek_sparse:GlmMoeDsa",
    "llama4_text": "llama4:Llama4",
    "glm4_moe": "glm4_moe:Glm4Moe",
    # more decoders
    "olmo": "olmo:Olmo",
    "olmo3": "olmo3:Olmo3",
    "olmoe": "olmoe:Olmoe",
    "qwen2_moe": "qwen2_moe:Qwen2Moe",
    "granitemoe": "granite_moe:GraniteMoe",
    "granitemoeshared": "granite_moe:GraniteMoeShared",
    "seed_oss": "seed_oss:SeedOss",
    "arcee": "arcee:Arcee",
    "nemotron": "nemotron:Nemotron",
    "helium": "helium:Helium",
    "ernie4_5": "ernie4_5:Ernie",
    "ernie4_5_moe": "ernie4_5:ErnieMoe",
    "hunyuan_v1_dense": "hunyuan:HunyuanDense",
    "exaone4": "exaone4:Exaone4",
    "exaone_moe": "exaone_moe:ExaoneMoe",
    "afmoe": "afmoe:Afmoe",
    "laguna": "laguna:Laguna",
    "dbrx": "dbrx:Dbrx",
    "ministral": "ministral:Ministral",
    "ministral3": "ministral:Ministral3",
    "cwm": "ministral:Cwm",
    "glm4_moe_lite": "glm4_moe_lite:Glm4MoeLite",
    "internlm3": "llama:InternLM3",
    # code that lies beside the weights
    "internlm2": "internlm2:InternLM2",
    "chatglm": "chatglm:ChatGLM",
    "minicpm": "minicpm:MiniCPM",
    "deepseek": "deepseek_moe:DeepSeekMoE",
    "bailing_moe": "ling:Ling",
    "apertus": "apertus:Apertus",
    "minimax_m2": "minimax_m2:MiniMaxM2",
    "hy_v3": "hy_v3:HyV3",
    "dots1": "dots1:Dots1",
    "mt5": "t5:MT5",
    "mistral4": "mistral4:Mistral4",
    "hunyuan_v1_moe": "hunyuan:HunyuanMoe",
    "mimo_v2_flash": "mimo_v2_flash:MiMoV2Flash",
    "phimoe": "phimoe:Phimoe",
    "bitnet": "bitnet:BitNet",
    "minicpm3": "minicpm3:MiniCPM3",
    "mpt": "mpt:Mpt",
    "codegen": "codegen:CodeGen",
    "gpt_neo": "gpt_neo:GPTNeo",
    # encoders with decoders
    "bart": "bart:Bart",
    "mbart": "bart:MBart",
    "pegasus": "bart:Pegasus",
    "m2m_100": "bart:M2M100",
    # encoders
    "roberta": "roberta:Roberta",
    "xlm-roberta": "roberta:Roberta",
    "camembert": "roberta:Roberta",
    "distilbert": "distilbert:DistilBert",
    "modernbert": "modernbert:ModernBert",
    "electra": "electra:Electra",
    "layoutlm": "layoutlm:LayoutLM",
    "mpnet": "mpnet:MPNet",
    # language models of multimodal ones
    "muse_glimmer_text": "muse_glimmer:MuseGlimmer",
    "qwen2_vl_text": "qwen_vl:Qwen2VLText",
    "qwen2_5_vl_text": "qwen_vl:Qwen2VLText",
    "qwen3_vl_text": "qwen_vl:Qwen3VLText",
    "qwen3_vl_moe_text": "qwen_vl:Qwen3VLMoeText",
    "qwen2_5_omni_text": "qwen_omni:Qwen25OmniText",
    "qwen3_omni_moe_text": "qwen_omni:Qwen3OmniText",
    "mllama_text_model": "mllama:MllamaText",
    "glm4v_text": "glm4v:Glm4vText",
    "glm4v_moe_text": "glm4v:Glm4vMoeText",
    "glm_ocr_text": "glm_ocr:GlmOcrText",
    "paddleocr_vl_text": "paddleocr_vl:PaddleText",
    "ernie4_5_vl_moe_text": "ernie4_5_vl:ErnieVLText",
    "deepseek_ocr2_text": "deepseek_ocr2:DeepseekOcr2Text",
    "minimax_m3_vl_text": "minimax_m3:MiniMaxM3",
    "step3p5": "step3p7:Step3p7",
    "phi4_multimodal": "phi4_multimodal:Phi4Text",
    # state space and linear attention; those of `Counted` classes are counted, not walked
    "mamba2": "mamba2:Mamba2",
    "nemotron_h": "nemotron_h:NemotronH",
    "jamba": "hybrid_mamba:Jamba",
    "bamba": "hybrid_mamba:Bamba",
    "falcon_h1": "falcon_h1:FalconH1",
    "granitemoehybrid": "granite_hybrid:GraniteHybrid",
    "zamba": "zamba:Zamba",
    "zamba2": "zamba:Zamba2",
    "lfm2": "lfm2:Lfm2",
    "lfm2_moe": "lfm2:Lfm2Moe",
    "lfm3": "lfm3:Lfm3",
    "qwen3_next": "delta:Qwen3Next",
    "qwen3_5_text": "delta:Qwen35",
    "qwen3_5_moe_text": "delta:Qwen35Moe",
    "olmo_hybrid": "olmo_hybrid:OlmoHybrid",
    "kimi_linear": "kimi_linear:KimiLinear",
    "bailing_hybrid": "kimi_linear:BailingHybrid",
    "recurrent_gemma": "recurrent_gemma:RecurrentGemma",
    "rwkv": "rwkv:Rwkv",
    "minimax": "minimax:MiniMax",
    # counted for other reasons
    "diffusion_gemma_text": "diffusion_gemma:DiffusionGemma",
    "gemma3n_text": "gemma3n:Gemma3n",
    "gemma4_text": "gemma4:Gemma4",
    "gemma4_unified_text": "gemma4:Gemma4Unified",
}

# parts of field names that no Llama has: a guess would be wrong by far
_UNLIKE_LLAMA: Final = ("expert", "state_size", "cross_attention", "lora_rank", "mamba", "conv_", "ssm", "linear_num")


@dataclass(frozen=True, slots=True)
class Count:
    """Parameters of a config. `exact` is false where the shape had to be guessed: three digits of `total` hold then, and `note` says why."""

    total: int
    exact: bool
    note: str


def count_parameters(entries: Mapping[str, Any]) -> Count:
    """How many parameters a model has, tied ones once, also where its training step is not modelled.

    An unknown family whose config has Llama's fields is counted as if it were one, to three digits, and says why.

    Raises:
        InvalidInput: a field is missing, malformed or out of range.
        UnsupportedArchitecture: the model type is unknown and the fields do not allow a guess.
    """
    config, model_type = _family_of(entries)
    if model_type in FAMILIES:
        return Count(_total(_whole(entries, CURRENT["transformers"], _make(config, model_type))), True, "")
    needed = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    missing = [name for name in needed if not config.has(name)]
    unlike = any(word in str(name) for name in config.entries for word in _UNLIKE_LLAMA)
    if missing or unlike or model_type in NO_LOSS:
        raise _unknown(model_type)
    why = reason(model_type) or f"model_type {shown(model_type)} is not modelled"
    return Count(_about(_total(_make(config, "llama"))), False, f"about: {why}; counted as if it were Llama")


def _about(total: int) -> int:
    """Three digits of a number; the others would say more than is known."""
    unit = 10 ** max(0, len(str(total)) - 3)
    return (total + unit // 2) // unit * unit


def _total(root: Root) -> int:
    seen: dict[int, int] = {}
    for name, module, places in root.distinct():
        inside = any(part.isdigit() for part in name.split("."))
        for _, parameter in module.own_parameters():
            # layers of a kind share their objects and count each time; outside of stacks an object seen twice is tied
            before = seen.get(id(parameter), 0) if inside else 0
            seen[id(parameter)] = before + parameter.numel[0] * places
    return sum(seen.values())


def build(
    entries: Mapping[str, Any],
    transformers: tuple[int, ...] = CURRENT["transformers"],
    framework: str = "",
    head: str | None = None,
    num_labels: int | None = None,
) -> Root:
    """The module tree of a config.json, as that version of transformers builds it, or a framework's own model code.

    A framework's code is known for a few families; for the others transformers' stands in (`Root.framework` says which).
    `head` None: the one that the config's `architectures` name.

    Raises:
        InvalidInput: a field is missing, malformed or out of range.
        UnsupportedArchitecture: the model type is not modelled.
    """
    config, model_type = _family_of(entries, transformers)
    if model_type not in FAMILIES:
        raise _unknown(model_type)
    root = _of_framework(config, framework)
    if root is None:
        root = _whole(entries, transformers, _make(config, model_type, head, num_labels))
    root.separable = model_type in SEPARATE
    if transformers < FUSED_SINCE and root.separable:
        separate(root, model_type)
    root.model_type = str(trained_part(entries).get("model_type", model_type))
    return root


def _of_framework(config: Config, framework: str) -> Root | None:
    """The framework's own model code; None where it has none for the config's own model type, or no framework is named."""
    model_type = config.text("model_type", "") if framework else ""
    if framework == "litgpt":
        from loralens.core.architecture.frameworks.litgpt import STYLES, LitGPT

        if model_type in STYLES:
            return LitGPT(config)
    if framework == "torchtune":
        from loralens.core.architecture.frameworks import torchtune

        if model_type in torchtune.STYLES:
            return torchtune.Torchtune(config)
    if framework == "megatron":
        from loralens.core.architecture.frameworks import megatron

        if model_type in megatron.STYLES:
            return megatron.MegatronGPT(config)
    return None


def is_known(entries: Mapping[str, Any]) -> bool:
    """Is the model type one whose shapes are known?"""
    return _family_of(entries)[1] in FAMILIES


def text_config(entries: Mapping[str, Any]) -> Config:
    """The language model's part of a config."""
    return _family_of(entries)[0]


def head_is_tied(entries: Mapping[str, Any], transformers: tuple[int, ...] = CURRENT["transformers"]) -> bool:
    """Does that version of transformers build the language model with one table for embedding and head?"""
    config, model_type = _family_of(entries, transformers)
    if model_type not in FAMILIES:
        raise _unknown(model_type)
    return _make(config, model_type, LM).tied


def _family_of(
    entries: Mapping[str, Any], transformers: tuple[int, ...] = CURRENT["transformers"]
) -> tuple[Config, str]:
    config, model_type = text_part(Config(trained_part(entries), transformers), FAMILIES)
    model_type = SAME.get(model_type, model_type)
    if not model_type and isinstance(entries.get("_class_name"), str):
        raise UnsupportedArchitecture(
            f"{shown(entries['_class_name'])} is a model of diffusers, whose step is not modelled",
            field="config._class_name",
            hint="`loralens trace --config config.json --plan FILE` makes a plan of its transformer: Flux, SD3, Qwen-Image, Wan",
        )
    if not model_type:
        raise InvalidInput(
            "config.model_type is missing", field="config.model_type", hint='add "model_type": "llama" or the like'
        )
    return config, model_type


def _class_of(model_type: str) -> type[Root]:
    module, name = FAMILIES[model_type].split(":")
    family: type[Root] = getattr(import_module(f"loralens.core.architecture.families.{module}"), name)
    return family


def _make(config: Config, model_type: str, asked: str | None = None, labels: int | None = None) -> Root:
    if labels is not None:
        config = config.over({"num_labels": labels, "id2label": None})
    root = _class_of(model_type)(config)  # type: ignore[call-arg]
    kind = head_of(config.entries, asked)
    if kind != LM:
        root.take_head(model_type, kind, labels_of(config, kind, labels), config)
    return root


def _whole(entries: Mapping[str, Any], transformers: tuple[int, ...], root: Root) -> Root:
    """With tower and projector, where the config names a multimodal model whose are known."""
    if root.task is None and (media := media_class(entries)) is not None and isinstance(root, CausalDecoder):
        media(root, Config(trained_part(entries), transformers))
    return root


def media_class(entries: Mapping[str, Any]) -> type[Media] | None:
    """What stands beside the language model; None for a plain one, and where it is not modelled."""
    outer = Config(trained_part(entries))
    named = MEDIA.get(outer.text("model_type", ""))
    if named is None:
        return None
    for module, name in (one.split(":") for one in named.split()):
        found: type[Media] = getattr(import_module(f"loralens.core.architecture.families.{module}"), name)
        if found.knows(outer):
            return found
    return None


def _unknown(model_type: str) -> UnsupportedArchitecture:
    spelled = {key(name): name for name in FAMILIES}
    near = [spelled[name] for name in closest(model_type, spelled)]
    why = reason(model_type)
    return UnsupportedArchitecture(
        f"model_type {shown(model_type)} is not modelled{f': {why}' if why else ''}",
        field="config.model_type",
        hint=(f"did you mean {', '.join(near)}? " if near else "")
        + f"`loralens models --families` lists the {len(FAMILIES)} that are (GET /api/families); "
        "`loralens trace --plan` makes a plan of any other one that transformers has",
    )


def families() -> dict[str, bool]:
    """Every model type by name; True where the training step is walked, False where parameters are only counted."""
    return {name: not _class_of(name).counted for name in sorted(FAMILIES)}


def label_parameters(root: Root) -> None:
    """Give every parameter a name without layer indices, so that layers of a kind share one entry of the ledger."""
    for name, module, _ in root.distinct():
        for own, parameter in module.owned():
            parameter.label = parameter.label or _label(f"{name}.{own}")


def _label(name: str) -> str:
    """A parameter's name without layer indices, so that layers of a kind share one entry."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))
