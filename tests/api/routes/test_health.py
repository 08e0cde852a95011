from __future__ import annotations

import loralens


def test_it_is_up(client):
    assert client.get("/api/health").json() == {"status": "ok", "version": loralens.__version__}
