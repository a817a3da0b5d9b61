"""A pytest plugin that writes which functions of the C++ extension a session has called."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spectrafuse._runtime import extensions

VARIABLE = "SPECTRAFUSE_CALLED_KERNELS"
_called: set[str] = set()


def functions() -> list[str]:
    """Names of the extension's functions."""
    return [name for name, value in vars(extensions.cpu()).items() if callable(value) and not name.startswith("_")]


def _recorded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        _called.add(name)
        return function(*arguments, **options)

    return call


def pytest_configure() -> None:
    for name in functions():
        setattr(extensions.cpu(), name, _recorded(name, getattr(extensions.cpu(), name)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    Path(os.environ[VARIABLE]).write_text(json.dumps(sorted(_called)), encoding="utf-8")
