"""The site: the pages of this folder, tutorials that are run, and the public names from their docstrings."""

import importlib
import re
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

from astroid.manager import AstroidManager
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))  # the site of this checkout, wherever another one is installed

project = "multitune"
author = "the multitune authors"
release = metadata.version("multitune")
extensions = ["myst_nb", "autoapi.extension", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build", "conf.py", "tutorials/runs"]
highlight_language = "none"
default_role = "code"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"  # warnings of a first use, progress


class EveryModule(set[str]):
    """Every module: what a file imports is not read to find out what its names are, which takes minutes with torch."""

    def __contains__(self, module: object) -> bool:
        return True


AstroidManager.brain["module_denylist"] = EveryModule()
autoapi_dirs = [str(ROOT / "src" / "multitune")]
autoapi_generate_api_docs = False
autoapi_python_class_content = "class"
suppress_warnings = ["autoapi.python_import_resolution"]  # of names that are not public
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"multitune {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}


def add_public_names(app: Sphinx) -> None:
    """Let `multitune.train` be what it stands for: autoapi does not see names that a package imports when asked."""
    documented = app.env.autoapi_all_objects
    for package in ("multitune", "multitune.hf", "multitune.data"):
        module: ModuleType = importlib.import_module(package)
        for name in module.__all__:
            home = getattr(module, name)
            if hasattr(home, "__module__") and (found := documented.get(f"{home.__module__}.{home.__qualname__}")):
                documented[package].children.append(found)


def read_as_text(*arguments: object) -> None:
    """Make reStructuredText of a docstring, in place: indented lines are formulas and code, numbers begin a list."""
    lines = arguments[-1]
    assert isinstance(lines, list)
    made: list[str] = []
    in_section = in_block = False
    for line in lines:
        after_blank = not made or not made[-1].strip()
        if line.strip() and not line.startswith(" "):
            in_section, in_block = bool(re.fullmatch(r"[A-Z]\w+:", line)), False
            made += [""] if re.match(r"1\. ", line) and not after_blank else []
        elif line.strip() and after_blank and not in_section and not in_block:
            made, in_block = [*made, "::", ""], True
        made.append(line if in_block else re.sub(r"\|", r"\\|", line))
    lines[:] = made


def setup(app: Sphinx) -> None:
    """Connect what is to be done after autoapi has read the code, and before pages are read."""
    app.connect("builder-inited", add_public_names, priority=900)
    app.connect("autodoc-process-docstring", read_as_text, priority=100)  # before napoleon
