"""The errors that fastgru adds to Python's own."""

from __future__ import annotations


class FileFormatError(ValueError):
    """A file that is damaged, hostile or of another format."""


class NonFiniteError(ArithmeticError):
    """NaN or inf where training cannot go on."""

    def at(self, where: str) -> NonFiniteError:
        """Return the same error, which says where it came up, too."""
        return NonFiniteError(f"{self} ({where})")
