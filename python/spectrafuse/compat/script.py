"""Run a script as `python SCRIPT ARGS` would, with the aliases in place, in this process and in those it starts.

A process that the script starts by `spawn` or `forkserver` (a data server, for instance) imports the main module
anew. It is told to import this one, which puts the aliases in place there before it runs the script's definitions.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from spectrafuse.compat.aliases import install

_SCRIPT = "SPECTRAFUSE_COMPAT_SCRIPT"
_NAME = "spectrafuse.compat.script"


def run(path: str | os.PathLike[str], arguments: Sequence[str]) -> None:
    """Run the script as the main module of this process.

    Parameters
    ----------
    path : path
        A Python file. Its folder takes the place of the current one in `sys.path`.
    arguments : sequence of str
        What the script finds in `sys.argv` behind its own path.

    Raises
    ------
    OSError, SyntaxError
        If the script cannot be read or compiled; and whatever it raises itself.
    """
    install()
    file = os.fspath(path)
    with open(file, "rb") as source:
        code = compile(source.read(), file, "exec")
    main = ModuleType("__main__")
    main.__dict__.update(__file__=file, __builtins__=__builtins__, __spec__=ModuleSpec(_NAME, None, origin=file))
    sys.argv = [file, *arguments]
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.path.dirname(os.path.abspath(file))
    os.environ[_SCRIPT] = os.path.abspath(file)
    sys.modules["__main__"] = main
    exec(code, main.__dict__)


if __name__ == "__mp_main__":
    install()
    definitions = runpy.run_path(os.environ[_SCRIPT], run_name=__name__)
    globals().update({name: value for name, value in definitions.items() if name not in ("__spec__", "__loader__")})
