"""Reads a page back: its tags, texts, scripts and charts."""

import json
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "link", "input"}


class Page(HTMLParser):
    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self.open = [], [], []
        self.style, self.scripts, self.headings = "", [], {"h1": [], "h2": [], "h3": []}
        self.feed(html)
        self.close()

    @classmethod
    def read(cls, path):
        return cls(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag in self.headings:
            self.headings[tag].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            attrs, text = self.scripts[-1]
            self.scripts[-1] = (attrs, text + data)
            return
        if self.open and self.open[-1] == "style":
            self.style += data
            return
        self.texts.append(data)
        for tag, headings in self.headings.items():
            if tag in self.open:
                headings[-1] += data

    @property
    def text(self):
        return " ".join("".join(self.texts).split())

    @property
    def charts(self):
        return json.loads(next(text for attrs, text in self.scripts if attrs.get("id") == "charts"))
