"""Forgetting, measured: start the experiment, or read the runs that ship with the program.

`POST /api/forgetting` takes {"budget": "quick" | "full", "seed", "seeds", "ranks", "old_text" and "new_text" (both or
neither), "old_name", "new_name", "fresh"}, all optional, and answers 202 {id, events, status, place}. Announced time on
2 cores: quick 60 s, full 10 minutes. A run that was interrupted or cancelled is gone on with by the same request,
unless `fresh`; its earlier points are then sent first.

Events of the job's stream (`GET /api/jobs/{id}/events`), each with its JSON in `data`. A *spread* is
{"mean", "low", "high", "values", "same_sign"}: mean over seeds, 95% interval (null for one value), the seeds' values.
Figures `old` and `new` are {"loss" (nats per token), "accuracy" (0..1)} on held-out old and new text.

- `plan`: {budget, budget_seconds, base_cached, resumed, arms: [{arm, method, rank, targets, train_rest, mix}], seeds,
  steps, evaluation_steps, sweep: {family: [rates]}, sweep_steps, tokens_per_step, old, new: {name, description,
  characters, content_hash}, machine: {processor, cores, system, python, torch, loralens}}
- `progress`: {phase: base | sweep | main | spectrum, done, total, train_loss?}
- `point`: {phase: base | sweep | main, arm, learning_rate, seed, step, train_loss, old, new}; the one of phase base has
  arm "base" and step 0 and is where every curve begins. Those of phase sweep are on validation text.
- `choice`: {learning_rates: {family: rate}, chosen_by}
- `spectrum`: {arm: full | linear, modules: [{module, shape, norm, relative_norm, singular_values, effective_rank,
  rank_90, rank_99}], energy: [{rank, share: spread, random_share}], truncated: [{rank, old_loss: spread,
  new_loss: spread}]}
- `cost`: {arm, trainable_parameters, total_parameters, measured: {weights_bytes, adapter_bytes, gradients_bytes,
  optimizer_state_bytes, peak_bytes, step_seconds: {median, low, high, samples}, step_processor_seconds: the same of
  processor time, or null}, predicted: null | {trainable_parameters, optimizer_state_bytes, peak_bytes, basis} | {error}}
- `result`: {budget, budget_seconds, seconds, stopped_early, base_was_cached, date, machine, model, old, new,
  reference_arm, learning_rates,
  summary: {step, seeds, base: {old, new}, arms: [{arm, method, rank, targets, train_rest, mix, learning_rate,
    old_loss, new_loss, old_accuracy, new_accuracy, forgetting_nats, forgetting_points, learned_nats, learned_points:
    spreads}], comparisons with full: [{arm, forgetting_nats, new_loss: spreads of arm minus full, at_equal_learning:
    {forgetting_nats: spread | null, seeds_reached}}], sweep_at_equal_learning: null | {new_loss, families: {family:
    {forgetting_nats, learning_rate}}}},
  rank_curve: [{rank, arm, new_loss: spread, gap_to_truncation: spread | null}],
  spectrum: {full, linear: as above}, costs: [as above], checks: {base_hash, base_unchanged, rank_zero_is_base},
  findings: [{id, en, zh}]}
- `done` or `error`: the end (see the jobs routes)

`GET /api/forgetting/recorded` answers {"runs": [{plan, points: [...], choice, result}]}, the data of the same events.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from loralens.api.answers import respond
from loralens.api.bodies import JsonBody
from loralens.api.lab import NEEDS_LAB
from loralens.api.problems import documented
from loralens.api.routes.jobs import Jobs, JobStarted, started
from loralens.lab.forgetting.recorded import recorded_answer
from loralens.lab.forgetting.request import check_request, corpora, keep_texts

router = APIRouter(tags=["forgetting"])
FUNCTION = "loralens.lab.forgetting.job:run"


class ForgettingRequest(BaseModel):
    """What `POST /api/forgetting` takes; every field may be left out."""

    budget: str = Field("quick", description="quick (announced: 60 s on 2 cores) or full (10 minutes).")
    seed: int = Field(0, description="First seed; the others follow it.")
    seeds: int | None = Field(None, ge=2, le=10, description="How many seeds; default 3.")
    ranks: list[int] | None = Field(None, description="Ranks of LoRA, 1 to 8 of them; default the budget's.")
    old_text: str | None = Field(None, description="Text to be remembered, at least 20,000 characters.")
    new_text: str | None = Field(None, description="Text to adapt to; give both or neither.")
    old_name: str | None = Field(None, description="What to call the old text.")
    new_name: str | None = Field(None, description="What to call the new text.")
    fresh: bool = Field(False, description="Do not go on with an interrupted run of the same request.")


class RecordedRuns(BaseModel):
    """Runs that ship with the program, shortest first; each labelled in `result` with date and machine."""

    runs: list[dict[str, object]]


@router.post(
    "/forgetting",
    status_code=202,
    summary="Start the forgetting experiment",
    dependencies=NEEDS_LAB,
    response_model=JobStarted,
    responses=documented(400, 409, 413, 415, 422, 503),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": ForgettingRequest.model_json_schema(), "example": {"budget": "quick"}}
            },
        }
    },
)
def start_forgetting(
    body: JsonBody,
    request: Request,
    jobs: Jobs,
    queue: Annotated[bool, Query(description="False: 409 if the device is busy.")] = True,
) -> dict[str, object]:
    """Trains a small model for real: full fine-tuning and LoRA side by side on the same text."""
    wanted = check_request(body)
    state_dir = request.app.state.settings.state_directory()
    corpora(wanted, state_dir)  # a bad text is refused now, not when its turn comes
    kept = keep_texts(wanted, state_dir, jobs.active_specs("forgetting"))
    spec = {name: value for name, value in kept.items() if value is not None}
    return started(jobs.submit("forgetting", FUNCTION, spec, "cpu", queue=queue))


@router.get("/forgetting/recorded", summary="Recorded runs of the experiment", response_model=RecordedRuns)
def read_recorded() -> Response:
    """The same data that a live run sends, so that the section teaches before anybody presses start."""
    return respond(recorded_answer())
