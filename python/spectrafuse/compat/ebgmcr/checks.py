"""Attributes that check what they are given, and modules that nobody has touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from spectrafuse._runtime import checks
from spectrafuse._runtime.errors import InvalidTypeError
from spectrafuse._runtime.hooks import has_hooks

Check = Callable[[str, Any], Any]
"""From an attribute's name and a value to the value that is kept."""


class Option:
    """A checked attribute.

    Parameters
    ----------
    check : callable
        Raises TypeError or ValueError, or returns what is kept.
    changed : callable, optional
        Called with the owner and the new value.
    """

    def __init__(self, check: Check, changed: Callable[[Any, Any], None] | None = None) -> None:
        self.check, self.changed = check, changed

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        if owner is None:
            return self
        try:
            return owner.__dict__["_" + self.name]
        except KeyError:
            raise AttributeError(f"'{type(owner).__name__}' object has no attribute '{self.name}'") from None

    def __set__(self, owner: Any, value: Any) -> None:
        value = self.check(self.name, value)
        owner.__dict__["_" + self.name] = value
        if self.changed is not None:
            self.changed(owner, value)


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidTypeError(f"`{name}` must be True or False; got {value!r}.")
    return value


def integer(minimum: int) -> Check:
    return lambda name, value: checks.integer(name, value, minimum=minimum)


def number(**bounds: float) -> Check:
    """A finite number within bounds, as a float."""
    return lambda name, value: checks.number(name, value, **bounds)


def whole_number(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"`{name}` must be an integer; got {value!r}.")
    return value


def optional(check: Check) -> Check:
    return lambda name, value: None if value is None else check(name, value)


def extension(name: str, value: Any) -> int | None:
    """0 and None both mean networks without hidden layers."""
    return None if value is None else checks.integer(name, value, minimum=0) or None


def function(name: str, value: Any) -> Any:
    if not callable(value):
        raise InvalidTypeError(f"`{name}` must be callable; got {type(value).__name__}.")
    return value


def untouched(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether calling `module` would run this class's `forward` and nothing else, so that it need not be called."""
    return type(module).forward is kind.forward and "forward" not in module.__dict__ and not has_hooks(module)


def plain_layers(network: nn.Module, activation: type[nn.Module]) -> list[nn.Linear] | None:
    """The linear layers of a network with `activation` between them; None where it is anything else.

    A network is then computed by our operations; otherwise, or with hooks, or under autocast, it is called.
    """
    if nn.modules.module._has_any_global_hook() or _autocast(network):
        return None
    modules: list[nn.Module] = [network]
    if untouched(network, nn.Sequential):
        modules = list(network.children())
    for index, module in enumerate(modules):
        if not untouched(module, activation if index % 2 else nn.Linear):
            return None
    layers = [module for module in modules[::2] if isinstance(module, nn.Linear)]
    if len(modules) % 2 == 0 or any(layer.bias is None for layer in layers):
        return None
    return layers


def _autocast(network: nn.Module) -> bool:
    parameter = next(network.parameters(), None)
    return parameter is not None and torch.is_autocast_enabled(parameter.device.type)
