"""Settings come from LORALENS_* and refuse what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from loralens.settings import Settings


def test_defaults_listen_on_this_machine_only(monkeypatch):
    settings = Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 5173)
    assert settings.allowed_hosts == ()


def test_lists_are_written_with_commas(monkeypatch):
    monkeypatch.setenv("LORALENS_ALLOWED_HOSTS", "lens.example, other.example,")
    monkeypatch.setenv("LORALENS_EMBED_ORIGINS", "https://a.example,https://b.example")
    settings = Settings()
    assert settings.allowed_hosts == ("lens.example", "other.example")
    assert settings.embed_origins == ("https://a.example", "https://b.example")


@pytest.mark.parametrize("value", ["https://a.example; script-src *", "https://a.example https://b.example"])
def test_an_origin_cannot_add_a_directive(value):
    with pytest.raises(ValidationError):
        Settings(embed_origins=value)


@pytest.mark.parametrize(("name", "value"), [("port", 70_000), ("max_body_bytes", 0), ("max_depth", 1), ("port", "x")])
def test_values_out_of_range(name, value):
    with pytest.raises(ValidationError):
        Settings(**{name: value})


def test_the_page_is_found_only_where_it_is_built(tmp_path):
    assert Settings(web_dir=tmp_path).page_directory() is None
    (tmp_path / "index.html").touch()
    assert Settings(web_dir=tmp_path).page_directory() == tmp_path


def test_the_state_folder(tmp_path):
    assert Settings(state_dir=tmp_path).state_directory() == tmp_path
    checkout = Path(__file__).resolve().parents[1]
    assert Settings().state_directory() == checkout / ".loralens"
