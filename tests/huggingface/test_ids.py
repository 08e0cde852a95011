"""Only names of models pass, whatever is pasted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralens.core.errors import InvalidInput
from loralens.huggingface.ids import model_id

NAME = st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9_.]{0,30}[A-Za-z0-9_])?", fullmatch=True).filter(
    lambda name: ".." not in name and not name.endswith(".git")
)


@given(NAME.filter(lambda owner: owner.lower() not in ("api", "docs", "tasks", "blog", "models", "papers")), NAME)
def test_a_name_and_every_address_of_its_page_mean_it(owner, name):
    wanted = f"{owner}/{name}"
    for text in (
        wanted, f"  {wanted}\n", f"https://huggingface.co/{wanted}", f"http://www.huggingface.co/{wanted}/",
        f"hf.co/{wanted}", f"huggingface.co/{wanted}/tree/main", f"https://huggingface.co/{wanted}?library=transformers",
        f"https://huggingface.co/{wanted}/blob/main/config.json#L3", f"https://huggingface.co/{wanted}/discussions/7",
    ):  # fmt: skip
        assert model_id(text) == wanted


@pytest.mark.parametrize(
    "text",
    ["", " ", "gpt2", "a/b/c", "../b", "a/..", "a/b..c", "/etc/passwd", "a//b", "a/b?x=1", "a/b#c", "a b/c", "a/b\x00",
     "a/b%2f..", "a\\b/c", "-a/b", "a/-b", "a/b.", "a/b.git", "a/" + "b" * 97, "x" * 400, "https://evil.example/a/b",
     "https://huggingface.co.evil.example/a/b", "https://huggingface.co@evil.example/a/b",
     "https://user:pw@huggingface.co/a/b", "file:///a/b", "ftp://huggingface.co/a/b", "https://huggingface.co/",
     "https://huggingface.co/datasets/a/b", "https://huggingface.co/spaces/a", "datasets/squad",
     "https://huggingface.co/a/b/tree/refs%2Fpr%2F1", "https://huggingface.co/a/b/resolve/v2/config.json",
     "https://[::1", "http://127.0.0.1:8000/a/b", "javascript://huggingface.co/a/b", "a/b--c"],
)  # fmt: skip
def test_everything_else_is_refused_with_an_example(text):
    with pytest.raises(InvalidInput) as caught:
        model_id(text)
    assert caught.value.field == "model"
    assert "Qwen/Qwen2.5-7B" in (caught.value.hint or "")
    assert len(caught.value.message) < 200


@given(st.text(max_size=120))
def test_whatever_passes_is_two_plain_path_segments(text):
    try:
        found = model_id(text)
    except InvalidInput:
        return
    owner, name = found.split("/")
    assert {*owner, *name} <= {*"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"}


def test_a_mirror_of_ones_own_is_read_too():
    hosts = frozenset({"hub.example"})
    assert model_id("https://hub.example/a/b", hosts) == "a/b"
