"""The whole experiment on a model of 12,000 parameters: what its events hold and what must always be true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lab.forgetting.small import SMALL

from loralens.lab.forgetting.experiment import choose_rates
from loralens.lab.forgetting.job import run_plan
from loralens.lab.tiny.corpus import code_corpus, prose_corpus

Events = list[dict[str, Any]]


def points(events: Events, phase: str = "main") -> Events:
    return [e for e in events if e["type"] == "point" and e["phase"] == phase]


def arm(events: Events, name: str) -> dict[str, Any]:
    return next(a for a in events[-1]["summary"]["arms"] if a["arm"] == name)


def test_events_come_in_order_and_are_json(events: Events) -> None:
    kinds = [e["type"] for e in events]
    assert kinds[0] == "plan" and kinds[-1] == "result"
    order = [kinds.index(kind) for kind in ("plan", "progress", "point", "choice", "spectrum", "cost", "result")]
    assert order == sorted(order)
    assert json.loads(json.dumps(events, allow_nan=False)) == events


def test_every_arm_and_seed_has_its_curve(events: Events) -> None:
    seen = [(p["arm"], p["seed"], p["step"]) for p in points(events)]
    wanted = {(a.id, s, step) for a in SMALL.arms for s in SMALL.seeds for step in SMALL.evaluation_steps}
    assert set(seen) == wanted
    assert len(seen) == len(wanted)
    sweep = {(p["arm"], p["learning_rate"]) for p in points(events, "sweep")}
    assert sweep == {(a.id, rate) for family, a in SMALL.families().items() for rate in SMALL.rates_of(family)}


def test_curves_grow_together(events: Events) -> None:
    steps = [p["step"] for p in points(events)]
    assert steps == sorted(steps)


def test_the_same_seed_gives_the_same_curves(events: Events, state_dir: Path) -> None:
    again = list(run_plan(SMALL, prose_corpus(), code_corpus(), state_dir))
    assert points(again) == points(events)
    assert points(again, "sweep") == points(events, "sweep")
    assert again[-1]["summary"] == events[-1]["summary"]
    assert again[-1]["spectrum"] == events[-1]["spectrum"]
    assert again[0]["base_cached"] and not events[0]["base_cached"]


def test_seeds_differ_and_agree_in_sign(events: Events) -> None:
    for name in ("full", "mixed", "linear", "lora-full-rank"):
        forgetting, learned = arm(events, name)["forgetting_nats"], arm(events, name)["learned_nats"]
        assert len(set(forgetting["values"])) == 3
        assert forgetting["same_sign"] and learned["same_sign"]
        assert forgetting["low"] < forgetting["mean"] < forgetting["high"]
        assert learned["mean"] > 0


def test_full_rank_lora_comes_close_to_full_fine_tuning(events: Events) -> None:
    """With embeddings and norms trained beside it and a rate of its own, nothing but the path differs."""
    full, close = arm(events, "full")["learned_nats"]["mean"], arm(events, "lora-full-rank")["learned_nats"]["mean"]
    low_rank = arm(events, "lora-r1")["learned_nats"]["mean"]
    assert close == pytest.approx(full, rel=0.15)
    assert low_rank < 0.7 * full


def test_rank_zero_is_the_base_and_the_base_is_unchanged(events: Events) -> None:
    assert events[-1]["checks"]["rank_zero_is_base"] is True
    assert events[-1]["checks"]["base_unchanged"] is True
    assert len(events[-1]["checks"]["base_hash"]) == 64


def test_figures_are_the_points(events: Events) -> None:
    """Recomputed by hand from the curves' ends."""
    base = points(events, "base")[0]
    last = [p for p in points(events) if p["arm"] == "lora-r4" and p["step"] == SMALL.steps]
    values = [p["old"]["loss"] - base["old"]["loss"] for p in sorted(last, key=lambda p: p["seed"])]
    assert arm(events, "lora-r4")["forgetting_nats"]["values"] == pytest.approx(values)
    assert arm(events, "lora-r4")["forgetting_nats"]["mean"] == pytest.approx(sum(values) / 3)
    lost = [100 * (base["old"]["accuracy"] - p["old"]["accuracy"]) for p in sorted(last, key=lambda p: p["seed"])]
    assert arm(events, "lora-r4")["forgetting_points"]["values"] == pytest.approx(lost)


def test_truncation_at_full_rank_is_the_trained_model(events: Events) -> None:
    for name in ("full", "linear"):
        cut = events[-1]["spectrum"][name]["truncated"]
        assert cut[-1]["rank"] == 16
        assert cut[-1]["new_loss"]["mean"] == pytest.approx(arm(events, name)["new_loss"]["mean"], abs=1e-4)
    base = points(events, "base")[0]
    assert events[-1]["spectrum"]["linear"]["truncated"][0]["new_loss"]["mean"] == pytest.approx(base["new"]["loss"])


def test_update_is_closer_to_low_rank_than_noise(events: Events) -> None:
    for entry in events[-1]["spectrum"]["full"]["energy"][1:-1]:
        assert entry["share"]["mean"] > entry["random_share"]


def test_nothing_is_left_on_disk(events: Events, state_dir: Path) -> None:
    assert [p for p in (state_dir / "forgetting").rglob("*") if p.is_file()] == []


def test_findings_are_said_in_both_languages(events: Events) -> None:
    found = events[-1]["findings"]
    assert {"full_forgets", "after_equal_steps", "rehearsal", "spectrum", "full_rank"} <= {f["id"] for f in found}
    assert all(f["en"].endswith(".") and f["zh"].endswith("。") for f in found)


def test_a_diverged_rate_is_never_chosen() -> None:
    sweep = [
        {"arm": a.id, "learning_rate": rate, "new": {"loss": float("nan") if rate == max(SMALL.rates_of(f)) else 5.0}}
        for f, a in SMALL.families().items()
        for rate in SMALL.rates_of(f)
    ]
    assert choose_rates(SMALL, sweep) == {f: min(SMALL.rates_of(f)) for f in SMALL.families()}
