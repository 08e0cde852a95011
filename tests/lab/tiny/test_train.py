from __future__ import annotations

from pathlib import Path

import pytest
import torch

from loralens.core.errors import InvalidInput
from loralens.lab.tiny.checkpoints import load_tensors, save_tensors
from loralens.lab.tiny.corpus import prose_corpus
from loralens.lab.tiny.lora import base_hash, inject_lora
from loralens.lab.tiny.model import TinyConfig, TinyLM
from loralens.lab.tiny.train import (
    TrainConfig,
    Trainer,
    draw_batch,
    encode_text,
    evaluate,
    held_out_windows,
    language_loss,
    one_thread,
)

SMALL = TinyConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=1, max_position_embeddings=64)
TRAIN = TrainConfig(steps=12, batch_size=4, sequence_length=16, learning_rate=1e-2, warmup_steps=3)


def tokens() -> torch.Tensor:
    return encode_text(prose_corpus().text("train")[:20_000])


def trainer(seed: int = 0, rank: int | None = None, **changes: float) -> Trainer:
    torch.manual_seed(0)
    model = TinyLM(SMALL)
    if rank is not None:
        inject_lora(model, rank=rank, targets=("q_proj", "v_proj"), seed=seed)
    config = TrainConfig(**{**TRAIN.__dict__, "seed": seed, **changes})
    return Trainer(model, tokens(), config, second=tokens().flip(0))


def losses(t: Trainer, until: int = 12) -> list[float]:
    return [step.loss for step in t.steps(until)]


def test_training_lowers_the_loss() -> None:
    values = losses(trainer(), 40)
    assert sum(values[-5:]) / 5 < sum(values[:5]) / 5 - 0.5


def test_same_seed_same_curve_whatever_else_draws_numbers() -> None:
    first = losses(trainer())
    torch.rand(100)
    assert losses(trainer()) == first
    assert losses(trainer(seed=1)) != first


@pytest.mark.parametrize("rank", [None, 4])
def test_a_saved_state_goes_on_to_the_same_bits(tmp_path: Path, rank: int | None) -> None:
    whole = losses(trainer(rank=rank))
    first = trainer(rank=rank)
    start = losses(first, 5)
    save_tensors(tmp_path / "state.safetensors", first.state(), {})
    second = trainer(rank=rank)
    losses(second, 3)  # dirty: loading must overwrite everything
    loaded = load_tensors(tmp_path / "state.safetensors")
    assert loaded is not None
    second.load_state(loaded[0])
    assert start + losses(second) == whole


def test_a_state_of_another_model_is_refused() -> None:
    with pytest.raises(InvalidInput, match="another model"):
        trainer(rank=2).load_state(trainer().state())


def test_constant_rate_makes_a_short_run_the_start_of_a_long_one() -> None:
    assert losses(trainer(steps=30), 8) == losses(trainer(steps=8), 8)


def test_learning_rate_warms_up_and_decays() -> None:
    constant, decaying = trainer(steps=100), trainer(steps=100, decay=True)
    assert [constant.learning_rate(s) for s in (1, 3, 50, 100)] == pytest.approx([1e-2 / 3, 1e-2, 1e-2, 1e-2])
    assert decaying.learning_rate(100) == pytest.approx(5e-4)


def test_mix_takes_its_share_from_the_second_text() -> None:
    t = trainer()
    plain, marked = torch.zeros(100, dtype=torch.int64), torch.ones(100, dtype=torch.int64)
    mixed = Trainer(t.model, plain, TrainConfig(batch_size=8, sequence_length=4, mix=0.25), second=marked)
    assert mixed.batch().float().mean(1).tolist() == [0.0] * 6 + [1.0] * 2


def test_rank_zero_never_moves() -> None:
    t = trainer(rank=0)
    before = base_hash(t.model)
    windows = held_out_windows(tokens(), count=4, length=16)
    wanted = evaluate(t.model, windows)
    losses(t, 4)
    assert evaluate(t.model, windows) == wanted
    assert base_hash(t.model) == before


def test_evaluation_is_the_mean_over_all_tokens() -> None:
    model = trainer().model
    windows = held_out_windows(tokens(), count=5, length=16)
    result = evaluate(model, windows, batch_size=2)
    assert result.loss == pytest.approx(language_loss(model, windows).item(), rel=1e-5)
    assert result.tokens == 80
    hits = (model(windows[:, :-1]).argmax(-1) == windows[:, 1:]).float().mean().item()
    assert result.accuracy == pytest.approx(hits)


def test_windows_are_consecutive_tokens_and_do_not_overlap() -> None:
    line = torch.arange(1000)
    windows = held_out_windows(line, count=7, length=9)
    assert windows.shape == (7, 10)
    assert (windows[:, 1:] == windows[:, :-1] + 1).all()
    assert len(set(windows.flatten().tolist())) == 70
    assert held_out_windows(line, count=10_000, length=9).shape[0] == 100
    batch = draw_batch(line, 50, 9, torch.Generator().manual_seed(0))
    assert (batch[:, 1:] == batch[:, :-1] + 1).all()


def test_too_few_tokens_are_refused() -> None:
    with pytest.raises(InvalidInput, match="too few"):
        held_out_windows(torch.arange(5), count=1, length=9)
    with pytest.raises(InvalidInput, match="too few"):
        draw_batch(torch.arange(5), 1, 9, torch.Generator())


def test_one_thread_is_given_back() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
