"""The package behind the book Small Models, Big Claims: one module a chapter, each readable on its own."""

__version__ = "0.1.0"
