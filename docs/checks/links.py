# SPDX-License-Identifier: Apache-2.0
"""links PATH...: fails unless every link of HTML pages, all of a folder, and of Markdown files leads somewhere.

A link to a file needs the file, and a # needs the anchor behind it. A link to elsewhere is checked in form only.
(LinkChecker can do that as well, but reads a page again for each anchor: 97 seconds instead of one.)
"""

from __future__ import annotations

import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from mdit_py_plugins.anchors import anchors_plugin

# The slugs of headings are those of GitHub.
MARKDOWN = MarkdownIt("commonmark").enable("table").use(anchors_plugin, max_level=6)
LINKS = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src", "iframe": "src", "form": "action"}


class Page(NamedTuple):
    """The anchors of a file, and its links."""

    anchors: set[str]
    links: list[str]


class Reader(HTMLParser):
    """Makes a page of HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.page = Page(set(), [])

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attributes if value is not None}
        self.page.anchors.update(given[name] for name in ("id", "name") if name in given)
        if LINKS.get(tag) in given:
            self.page.links.append(given[LINKS[tag]])


@cache
def page(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(MARKDOWN.render(text) if path.suffix == ".md" else text)
    return reader.page


def wrong(path: Path, link: str) -> str:
    """The fault of a link, or nothing."""
    try:
        parts = urlsplit(link)
    except ValueError as error:
        return str(error)
    if parts.scheme == "mailto":
        return "" if "@" in parts.path else "no address"
    if parts.scheme in ("http", "https"):
        is_name = "." in parts.netloc and not set(link) & set(' <>"{}|\\^`')
        return "" if is_name else "no address"
    if parts.scheme or parts.netloc:
        return f"a scheme of {parts.scheme or 'nothing'}"
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.exists():
        return "no such file"
    if parts.fragment and target.suffix in (".md", ".html") and unquote(parts.fragment) not in page(target).anchors:
        return "no such anchor"
    return ""


def main() -> int:
    given = [Path(argument).resolve() for argument in sys.argv[1:]]
    paths = [path for each in given for path in (sorted(each.rglob("*.html")) if each.is_dir() else [each])]
    failures = [(path, link, wrong(path, link)) for path in paths for link in page(path).links]
    failures = [failure for failure in failures if failure[2]]
    for path, link, what in failures:
        print(f"{path}: {link}: {what}")
    outside = sum(urlsplit(link).scheme in ("http", "https") for path in paths for link in page(path).links)
    count = sum(len(page(path).links) for path in paths)
    print(f"{count} links of {len(paths)} files ({outside} to elsewhere, by form alone); {len(failures)} are dead")
    return 1 if failures or not count else 0


if __name__ == "__main__":
    sys.exit(main())
