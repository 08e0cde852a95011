"""The notebook's card: small, by itself, and nothing that is given gets out of its text."""

from __future__ import annotations

from html.parser import HTMLParser

from loralens.core.answer.estimate import estimate
from loralens.core.answer.notebook import html_card


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.opened, self.words = [], []

    def handle_starttag(self, tag, attrs):
        self.opened.append(tag)
        assert all(name in ("style", "aria-hidden") for name, _ in attrs)

    def handle_data(self, data):
        self.words.append(data)


def parsed(text):
    tags = Tags()
    tags.feed(text)
    return tags


def test_an_estimate_shows_itself():
    found = estimate("qwen2.5-0.5b", "qlora", rank=16)
    html = found._repr_html_()
    assert len(html) < 4_000
    assert "http" not in html and "url(" not in html
    tags = parsed(html)
    assert set(tags.opened) <= {"div", "b", "span", "table", "tr", "td"}
    text = " ".join(tags.words)
    assert f"{found.trainable_parameters:,} of {found.total_parameters:,}" in text
    assert sum(word.endswith(" GiB") for word in tags.words) == sum(size > 0 for size in found.breakdown.values())


def test_names_are_escaped_and_colours_are_the_notebooks():
    html = html_card("<script>alert(1)</script>", ['"><img src=x onerror=y>'], {"<i>": 3, "weights_bytes": 5})
    assert set(parsed(html).opened) <= {"div", "b", "span", "table", "tr", "td"}
    assert "color:inherit" in html and "background:#fff" not in html
    assert parsed(html_card("a", [], {})).opened == ["div", "div", "b"]
