"""The site: `make docs` builds it into build/docs, without the network, and takes every warning for an error."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "spectrafuse"
author = "The spectrafuse developers"
copyright = author
exclude_patterns = ["_extensions", "gallery", "**/README.txt"]
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "links_to_files",
    "math_in_html",
    "broken_links",
]
templates_path = ["_templates"]
nitpicky = True
nitpick_ignore_regex = [("py:class", r"numpy\..*")]
default_role = "code"

# The same Markdown is read on its own, where files of the repository are linked to: `links_to_files`.
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4
pages_from_elsewhere = {
    "CHANGELOG.md": "generated/changelog.md",
    "CONTRIBUTING.md": "generated/contributing.md",
    "benchmarks/README.md": "generated/benchmarks.md",
    "benchmarks/explained.md": "generated/benchmarks_explained.md",
    "benchmarks/results/dgc/README.md": "generated/segmentation_results.md",
    "benchmarks/results/ebgmcr/README.md": "generated/unmixing_results.md",
    "python/spectrafuse/compat/README.md": "generated/published_packages.md",
}

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "generated/gallery",
    "filename_pattern": r"\.py$",
    "backreferences_dir": None,
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "show_signature": False,
    "remove_config_comments": True,
    "image_scrapers": ("matplotlib",),
    "within_subsection_order": "FileNameSortKey",
    "capture_repr": (),
}

html_theme = "pydata_sphinx_theme"
html_title = "spectrafuse"
html_static_path = ["_static"]
html_css_files = ["site.css"]
# Pages that stand alone have no section to navigate in.
html_sidebars = {"index": [], "getting_started": [], "kernels": []}
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": False,
    "header_links_before_dropdown": 7,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


def setup(app):
    """Leave out of class pages what NamedTuple and scikit-learn add to every class."""
    app.connect("autodoc-skip-member", lambda app, what, name, value, skip, options: _is_added(name, value) or None)


def _is_added(name, value):
    return type(value).__name__ == "_tuplegetter" or (name.startswith("set_") and name.endswith("_request"))
