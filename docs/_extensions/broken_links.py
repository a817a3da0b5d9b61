"""Every link of the finished pages to a page, an anchor or a file of the site must lead somewhere."""

import logging
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

log = logging.getLogger("sphinx.broken_links")


class Page(HTMLParser):
    """Anchors of a page, and what it links to."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Note both."""
        for name, value in attrs:
            if value and name in ("id", "name"):
                self.anchors.add(value)
            elif value and name in ("href", "src"):
                self.links.add(value)


def broken(folder):
    """Sentences about links of the HTML files below a folder that lead nowhere."""
    pages = {
        file.resolve(): Page(file.read_text(encoding="utf-8"))
        for file in Path(folder).rglob("*.html")
        if "_static" not in file.parts
    }
    sentences = []
    for file, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            anchor = unquote(parts.fragment)
            if not target.exists():
                sentences.append(f"{file.relative_to(Path(folder).resolve())}: {link} does not exist")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                sentences.append(f"{file.relative_to(Path(folder).resolve())}: {link} has no such anchor")
    return sentences


def check(app, error):
    """Warn about them, at the end of a build of HTML."""
    if error is None and app.builder.format == "html":
        for sentence in broken(app.outdir):
            log.warning("%s", sentence)


def setup(app):
    """Do so."""
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
