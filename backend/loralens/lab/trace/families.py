"""Which transformers class trains a family, what its inputs are, and where its layers lie."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import torch

from loralens.core.architecture.heads import EMBEDDING, LM, no_such_head
from loralens.core.architecture.registry import families as walked
from loralens.core.errors import UnsupportedArchitecture
from loralens.lab.trace import hub

# families with parameters that train in name and no gradient ever reaches
UNREACHED: Final = frozenset(
    {"jamba", "mamba", "falcon_mamba", "gemma3n_text", "deepseek_v32", "glm_moe_dsa", "deepseek_v4", "layoutlm"}
)


def reaches_all(config: Any) -> bool:
    """Is it known that every parameter that trains gets a gradient? A tower without pictures does not, nor does who nobody knows."""
    towers = any(hasattr(config, name) for name in ("vision_config", "audio_config"))
    return not towers and config.model_type not in UNREACHED and walked().get(config.model_type, False)


def model_class(config: Any, head: str = LM) -> Any:
    """The class with a training loss: causal language model first, then the encoders' and seq2seq's own heads.

    `head`: another one's class, or the base model's.
    """
    from transformers.models.auto import modeling_auto as auto

    if head == LM and (told := hub.model_class(config)) is not None:
        return told
    if head != LM:
        mapping = getattr(auto, _MAPPINGS[head])
        if head == "question_answering" and type(config) not in mapping:
            mapping = auto.MODEL_FOR_DOCUMENT_QUESTION_ANSWERING_MAPPING
        if type(config) not in mapping:
            raise no_such_head(str(config.model_type), head)
        found = mapping[type(config)]
        return found[0] if isinstance(found, tuple) else found
    for mapping in (
        auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        auto.MODEL_FOR_CAUSAL_LM_MAPPING if not config.is_encoder_decoder else {},
        auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
        auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        auto.MODEL_FOR_MASKED_LM_MAPPING,
        auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
        auto.MODEL_FOR_CAUSAL_LM_MAPPING,
        auto.MODEL_FOR_MULTIMODAL_LM_MAPPING,
    ):
        if type(config) in mapping and not (
            config.model_type in _ENCODERS and mapping is auto.MODEL_FOR_CAUSAL_LM_MAPPING
        ):
            found = mapping[type(config)]
            return found[0] if isinstance(found, tuple) else found
    if found := _unlisted(config) or _inside(config):
        return found
    raise UnsupportedArchitecture(
        f"transformers has no model with a training loss for model_type {config.model_type!r}",
        field="config.model_type",
    )


def _unlisted(config: Any) -> Any:
    """A causal language model that lies beside its config, but in none of transformers' mappings (Mistral 4); else None."""
    place = type(config).__module__.replace(".configuration_", ".modeling_")
    try:
        classes = vars(import_module(place))
    except ImportError:
        return None
    return next((found for name, found in classes.items() if name.endswith("ForCausalLM")), None)


class LanguageModel:
    """The class of a language model that transformers makes together with its tower only, which is taken out again."""

    def __init__(self, whole: Any, wrapper: Any) -> None:
        self._whole, self._wrapper = whole, wrapper

    def _from_config(self, config: Any, **words: Any) -> Any:
        outer = self._wrapper(text_config=config.to_dict())
        outer.use_cache = outer.get_text_config().use_cache = config.use_cache
        model = self._whole._from_config(outer, **words)
        for name, _ in list(model.model.named_children()):
            if name != "language_model":
                delattr(model.model, name)
        return model


def _inside(config: Any) -> LanguageModel | None:
    """The language model of a wrapper whose text config this is (Muse Glimmer); else None."""
    from transformers.models.auto import modeling_auto as auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    name = str(config.model_type).removesuffix("_text")
    wrapper = CONFIG_MAPPING[name] if name != config.model_type and name in CONFIG_MAPPING else None
    if wrapper is None or wrapper not in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return None
    return LanguageModel(auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[wrapper], wrapper)


_MAPPINGS = {
    "sequence_classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "reward": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "token_classification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING",
    "question_answering": "MODEL_FOR_QUESTION_ANSWERING_MAPPING",
    EMBEDDING: "MODEL_MAPPING",
}
_ENCODERS = frozenset(
    {
        "bert",
        "roberta",
        "camembert",
        "distilbert",
        "electra",
        "deberta",
        "deberta-v2",
        "modernbert",
        "xlm-roberta",
        "albert",
    }
)


def layer_list(model: torch.nn.Module) -> tuple[str, torch.nn.ModuleList]:
    """The last list of layers and its path: a decoder's, where there is an encoder too.

    Raises:
        UnsupportedArchitecture: the model has no list of layers.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)]
    layers = [entry for entry in lists if all(isinstance(layer, GradientCheckpointingLayer) for layer in entry[1])]
    if not lists:
        raise UnsupportedArchitecture("the model has no list of layers", field="recipe.trainable_layers")
    return layers[-1] if layers else max(lists, key=lambda entry: len(entry[1]))


def inputs(
    config: Any, batch: int, length: int, *, padded: bool, dtype: torch.dtype, device: str = "cuda", head: str = LM
) -> dict[str, torch.Tensor]:
    """One batch on the fake GPU, with labels; pictures and sound come in `dtype`."""

    def tokens(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.int64, device=device)

    kind = config.model_type
    if hasattr(config, "num_channels") and hasattr(config, "patch_size"):
        size = config.image_size
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        pixels = torch.empty(batch, config.num_channels, height, width, device=device, dtype=dtype)
        return {"pixel_values": pixels, "labels": tokens(batch)}
    if kind == "whisper":
        frames = 2 * config.max_source_positions
        sound = torch.empty(batch, config.num_mel_bins, frames, device=device, dtype=dtype)
        return {"input_features": sound, "labels": tokens(batch, min(length, config.max_target_positions))}
    batch_inputs = {"input_ids": tokens(batch, length)}
    match head:
        case "question_answering":
            batch_inputs |= {"start_positions": tokens(batch), "end_positions": tokens(batch)}
        case "sequence_classification" | "reward":
            one = config.num_labels == 1
            batch_inputs["labels"] = torch.empty(batch, device=device) if one else tokens(batch)
        case "lm" | "token_classification":
            batch_inputs["labels"] = tokens(batch, length)
    if padded:
        batch_inputs["attention_mask"] = tokens(batch, length)
    if kind == "layoutlm":
        batch_inputs["bbox"] = tokens(batch, length, 4)
    return batch_inputs
