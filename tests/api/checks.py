"""What every error answer must look like."""

from __future__ import annotations

from typing import Any

import httpx

from loralens.api.problems import Problem


def problem(response: httpx.Response, status: int | None = None) -> dict[str, Any]:
    """The body, after checking that it is a complete problem."""
    assert response.headers["content-type"] == "application/problem+json", response.text[:300]
    body = response.json()
    assert set(body) == set(Problem.model_fields)
    assert body["status"] == response.status_code
    assert body["code"] and body["title"] and body["detail"]
    assert body["type"] == f"urn:loralens:problem:{body['code']}"
    if status is not None:
        assert response.status_code == status, body
    return body
