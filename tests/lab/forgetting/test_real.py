"""The experiment on a real transformers model: a Llama of 40,000 parameters saved as the Hub has them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from loralens.core.errors import HubUnavailable, InvalidInput, UnsupportedArchitecture
from loralens.lab.forgetting.real import linear_names, load, plan_for_real, run_real
from loralens.lab.forgetting.request import check_request
from loralens.lab.tiny.corpus import Corpus, text_corpus

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def text(alphabet: str, seed: int) -> Corpus:
    draw = random.Random(seed)
    words = ["".join(draw.choices(alphabet, k=draw.randint(2, 7))) for _ in range(60)]
    return text_corpus(alphabet[:3], "\n".join(" ".join(draw.choices(words, k=9)) for _ in range(900)), field="text")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    path = tmp_path_factory.mktemp("llama")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(path)
    config = transformers.LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


def test_the_whole_experiment_on_a_local_model(folder: Path, tmp_path: Path) -> None:
    old, new = text("abcdefghijklm", 1), text("nopqrstuvwxyz", 2)
    events: list[dict[str, Any]] = list(
        run_real(str(folder), old, new, spec={"seeds": 2, "ranks": [4]}, steps=6, device="cpu", state_dir=tmp_path)
    )
    result = events[-1]
    assert result["type"] == "result"
    assert result["checks"] == {**result["checks"], "base_unchanged": True, "rank_zero_is_base": True}
    assert result["model"]["name"] == str(folder)
    arms = {arm["arm"] for arm in result["summary"]["arms"]}
    assert arms == {"full", "mixed", "linear", "lora-r4", "lora-r4-qv"}
    measured = [p for p in events if p["type"] == "point" and p["phase"] == "main"]
    assert len(measured) == 5 * 2 * len(events[0]["evaluation_steps"])
    predicted = {c["arm"]: c["predicted"] for c in result["costs"]}
    costs = {c["arm"]: c["trainable_parameters"] for c in result["costs"]}
    assert predicted["full"]["trainable_parameters"] == costs["full"]
    assert predicted["lora-r4"]["trainable_parameters"] == costs["lora-r4"]
    assert next(f["id"] for f in result["findings"]) == "full_forgets"
    assert [p for p in (tmp_path / "forgetting").rglob("*") if p.is_file()] == []


def test_no_head_among_the_adapted_layers(folder: Path) -> None:
    model, encode, config = load(str(folder), "cpu")
    assert set(linear_names(model)) == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    }  # fmt: skip
    assert encode("ab").tolist() == [encode("a").item(), encode("b").item()]
    assert config["model_type"] == "llama"


def test_plan_has_a_point_at_the_last_step() -> None:
    plan = plan_for_real(check_request({"ranks": [2, 32]}), ("q_proj", "v_proj", "up_proj"), 40)
    assert plan.evaluation_steps[-1] == 40
    assert plan.families()["lora"].rank == 2
    assert not plan.resident


def test_what_cannot_be_loaded_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = text("abcdefghijklm", 1), text("nopqrstuvwxyz", 2)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises((InvalidInput, UnsupportedArchitecture)):
        next(run_real(str(tmp_path), old, new, spec={}, device="cpu"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnavailable):
        next(run_real("nobody/no-such-model", old, new, spec={}, device="cpu"))
    with pytest.raises(InvalidInput, match="steps must be"):
        next(run_real(str(tmp_path), old, new, spec={}, steps=0))
    with pytest.raises(InvalidInput, match="device must be"):
        next(run_real(str(tmp_path), old, new, spec={}, device="tpu"))
