"""Markdown of the repository as pages: files outside `docs` become pages of the site, and links lead to these.

A link to an example leads to its page. One to a file that is no page of the site keeps its words only; one to a file
that does not exist is a warning.
"""

import logging
import os
import re
from pathlib import Path

LINK = re.compile(r"```.*?```|(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)|`[^`\n]*`", re.DOTALL)
"""Or code, which stays as it is."""
log = logging.getLogger("sphinx.links_to_files")


def rewritten(text, origin, page, docs, pages):
    """Markdown with links as they must be on another page.

    Parameters
    ----------
    text : str
    origin, page : Path
        Where the text stands in the repository, and the file Sphinx reads it from.
    docs : Path
        The folder of the site's sources, right below the repository's root.
    pages : dict of str to str
        Files of the repository, and the pages below `docs` that are made of them.

    Raises
    ------
    FileNotFoundError
        For a link to a file that does not exist.
    """

    def link(match):
        picture, words, target = match.groups()
        if target is None:
            return match.group()
        path, mark, anchor = target.partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return match.group()
        file = Path(os.path.normpath(origin.parent / path))
        if not file.exists():
            raise FileNotFoundError(f"{origin}: {target} does not exist")
        inside = os.path.relpath(file, docs.parent)
        if inside in pages:
            file = docs / pages[inside]
        elif file.parent == docs / "gallery":
            file = docs / "generated" / "gallery" / f"{file.stem}.rst"
        elif not picture and (docs not in file.parents or file.suffix != ".md"):
            return words
        return f"{picture}[{words}]({os.path.relpath(file, page.parent)}{mark}{anchor})"

    return LINK.sub(link, text)


def copy_pages(app):
    """Write the pages that stand elsewhere in the repository."""
    docs, pages = Path(app.srcdir), app.config.pages_from_elsewhere
    for origin, page in pages.items():
        file, target = docs.parent / origin, docs / page
        text = rewritten(file.read_text(encoding="utf-8"), file, target, docs, pages)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")


def read(app, name, source):
    """The text of a page as Sphinx is to see it."""
    file = Path(app.env.doc2path(name))
    if file.suffix == ".md" and "generated" not in file.parts:
        try:
            source[0] = rewritten(source[0], file, file, Path(app.srcdir), app.config.pages_from_elsewhere)
        except FileNotFoundError as error:
            log.warning("%s", error)


def setup(app):
    """Do both."""
    app.add_config_value("pages_from_elsewhere", {}, "env", dict)
    app.connect("builder-inited", copy_pages, priority=1)
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
