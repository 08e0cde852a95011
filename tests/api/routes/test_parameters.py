from __future__ import annotations

import pytest

from loralens.api.shape import shape
from loralens.core.answer.shapes import ParametersAnswer


@pytest.mark.parametrize(
    "query", ["model=7B", "model=7B&method=full", "model=qwen2.5-0.5b&rank=4&target_modules=all-linear"]
)
def test_rows_add_up_to_the_totals(client, query):
    answer = shape(ParametersAnswer).model_validate(client.get(f"/api/parameters?{query}").json())
    assert sum(row.parameters for row in answer.tensors) == answer.parameters.total
    assert sum(row.parameters for row in answer.tensors if row.trainable) == answer.parameters.trainable


def test_other_ranks_are_what_they_would_be(client):
    rows = client.get("/api/parameters?model=7B").json()["by_rank"]
    for row in rows[:5]:
        answer = client.get(f"/api/parameters?model=7B&rank={row['rank']}").json()
        assert answer["parameters"]["trainable"] == row["trainable"]
