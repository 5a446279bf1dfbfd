"""A page of sections, in one file: its style, its script and its data are inside."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

from busdoor._version import __version__
from busdoor.html.palette import definitions
from busdoor.html.template import fill, read


@dataclass(frozen=True)
class Section:
    """A part of a page: its heading, as text, and its content, as HTML."""

    title: str
    body: str

    def html(self) -> str:
        """Return the section with its heading."""
        return f"<section>\n<h2>{escape(self.title)}</h2>\n{self.body}\n</section>"


@dataclass(frozen=True)
class Page:
    """A report: title, a line of facts, the result in words (may be empty), all text, and sections.

    >>> page = Page("Title", "Facts", "It is so.", (Section("Part", "<p>Content.</p>"),)).html()
    >>> page[:15], "http" in page
    ('<!DOCTYPE html>', False)
    """

    title: str
    facts: str
    verdict: str
    sections: tuple[Section, ...]

    def html(self) -> str:
        """Return the whole file."""
        content = {
            "version": __version__,
            "title": escape(self.title),
            "facts": escape(self.facts),
            "lead": f'<p class="verdict">{escape(self.verdict)}</p>' if self.verdict else "",
            "sections": "\n".join(section.html() for section in self.sections),
            "css": read("page.css"),
            "script": read("play.js") + read("sift.js"),
        }
        return fill("page.html", colors=definitions(" ".join(content.values())), **content) + "\n"

    def write(self, file: str | Path) -> Path:
        """Write the page into a file; its folder is made if it is missing."""
        path = Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.html(), encoding="utf-8")
        return path
