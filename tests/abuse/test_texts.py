"""Texts of the forgetting experiment: what a job that waits will need is not thrown away."""

from __future__ import annotations

import random
from pathlib import Path

from jobs.serving import Server

from loralens.lab.forgetting.request import KEPT_TEXTS, check_request, corpora

VOCABULARY = ["cat", "dog", "mat", "door", "rain", "town", "quiet", "night", "river", "bread", "stone", "light"]
WAITING = 49  # beside the one that runs: as many as a device takes, each with two texts


def text(seed: int) -> str:
    chosen = random.Random(seed)
    return " ".join(chosen.choice(VOCABULARY) for _ in range(5_000))


def test_every_job_that_waits_finds_its_texts(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        running = server.post("/api/benchmarks", {"in_features": 2048, "out_features": 2048, "seconds": 600})
        jobs = [
            server.post("/api/forgetting", {"old_text": text(2 * number), "new_text": text(2 * number + 1)})
            for number in range(WAITING)
        ]
        assert 2 * len(jobs) > KEPT_TEXTS
        for job in jobs:
            spec = server.get(f"/api/jobs/{job['id']}")["spec"]
            corpora(check_request(spec), tmp_path)  # raises where a text is gone
            server.delete(f"/api/jobs/{job['id']}")
        server.delete(f"/api/jobs/{running['id']}")
        # Nothing needs them any more: the next request leaves the newest only.
        server.post("/api/forgetting", {"old_text": text(-1), "new_text": text(-2)})
        assert len(list((tmp_path / "forgetting-texts").iterdir())) == KEPT_TEXTS
    finally:
        server.close()
