"""The page is one file that loads nothing, and shows users' text as text."""

import re
from html.parser import HTMLParser

import pytest


class Outline(HTMLParser):
    """Collects tags, and checks that they close in order."""

    VOID = ("meta",)

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def outline_of(demo):
    def write(*options):
        path = demo.folder / "page.html"
        result = demo.run("--html", str(path), *options)
        assert result.exit_code == 0, result.output
        text = path.read_text("utf-8")
        outline = Outline()
        outline.feed(text)
        assert outline.open == []
        return text, outline

    return write


def test_the_page_loads_nothing_and_runs_nothing(demo, call, outline_of):
    demo.declare('[bill]\non_conflict = "cancel"\n')
    demo.log(call(0), call(0.5))

    text, outline = outline_of()

    assert not re.search(r"https?:|url\(|@import|src=|href=", text)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in outline.tags}
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text


def test_users_text_is_escaped(demo, call, outline_of):
    evil = "<script>alert('x')</script>&\"\x00"
    demo.declare('[bill]\nby = "tenant"\n')
    demo.log(call(0, tenant=evil, other=evil + "\ud800"), call(0, function=evil))

    text, outline = outline_of()

    assert "<script" not in text
    assert "script" not in {tag for tag, _ in outline.tags}
    assert any("<script>alert('x')" in data for data in outline.texts)


def test_each_call_tells_its_story_when_pointed_at(demo, call, outline_of):
    demo.declare("[bill]\ntimeout = 0.75\n")
    demo.log(call(0, tenant="acme"), call(0.5, tenant="dune"), call(0.1, tenant="ember"))

    _, outline = outline_of()
    stories = [data for data in outline.texts if "asked at" in data]

    assert any(
        story.startswith("bill(tenant='acme'), line 1\nasked at 0.000 s, waited 0 ms\nheld")
        for story in stories
    )
    assert any(story.endswith("waited 750 ms\ntimed out") for story in stories)
    assert any("1 waiting" in data for data in outline.texts)


def test_the_summary_is_on_the_page(demo, call, outline_of):
    demo.declare("[bill]\n")
    demo.log(call(0), call(0))

    text, _ = outline_of()

    assert "<td>bill()</td><td>1 of 1</td><td>2</td><td>0 ms</td><td>1.00 s</td>" in text
    assert "No limit was exceeded." in text
