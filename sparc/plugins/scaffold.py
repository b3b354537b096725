"""Write the package of a new plugin from templates. It works as written and marks what its author replaces."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path
from string import Template

from sparc.errors import InvalidConfig
from sparc.system.refusals import writing

PLUGIN_KINDS = ("backbone", "dataset")
PACKAGE_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
FILES = {
    "pyproject.toml": "pyproject.toml.in",
    "README.md": "README.md.in",
    "{module}.py": "module.py.in",
    "test_{module}.py": "test.py.in",
}


def new_plugin(name: str, kind: str, parent: Path) -> Path:
    """Write the package of a plugin that offers `name` into a new folder in `parent`, and return the folder.

    Raises:
        InvalidConfig: the name is not valid for a package, the kind is unknown, or the folder exists already.
        StorageError: the disk is full or not writable.
    """
    if kind not in PLUGIN_KINDS:
        raise InvalidConfig(f"--kind: expected {' or '.join(PLUGIN_KINDS)}, found '{kind}'", hint="choose one of them")
    if not PACKAGE_NAME.fullmatch(name) or keyword.iskeyword(name):
        raise InvalidConfig(
            f"expected a name of small letters, digits and '-', found '{name}'", hint="such as my-model"
        )
    package = f"sparc-{name.replace('_', '-')}"
    module = package.replace("-", "_")
    folder = parent / package
    words = {
        "name": name,
        "package": package,
        "module": module,
        "klass": "".join(part.capitalize() for part in re.split("[-_]", name)),
    }
    templates = files("sparc.plugins") / "templates" / kind
    if folder.exists():
        raise InvalidConfig(f"{folder} already exists", hint="choose another name or --into")
    with writing(folder):
        folder.mkdir(parents=True)
        for target, source in FILES.items():
            text = Template((templates / source).read_text(encoding="utf-8")).substitute(words)
            (folder / target.format(module=module)).write_text(text, encoding="utf-8")
    return folder
