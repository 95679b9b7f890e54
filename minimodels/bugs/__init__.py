"""Bugs that still train, planted on purpose: the reader writes the tests that find them, and studies measure what they cost.

A chapter's bugs stand in `minimodels/bugs/<word>.py`. Each is a subclass of the module that it spoils, with the same weights.
"""

from torch import nn


def plant(module: nn.Module, bug: type[nn.Module]) -> nn.Module:
    """Spoil every part of module whose class bug extends, in place; returns module. Weights and their draws stay as they were.

    Raises ValueError if there is nothing to spoil.
    """
    healthy = bug.__bases__[0]
    parts = [part for part in module.modules() if type(part) is healthy]
    if not parts:
        raise ValueError(f"module must hold a {healthy.__name__} to plant {bug.__name__} in, got a {type(module).__name__} without one")
    for part in parts:
        part.__class__ = bug
    return module
