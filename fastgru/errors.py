"""The errors that fastgru adds to Python's own."""


class FileFormatError(ValueError):
    """A file that is damaged, hostile or of another format."""


class NonFiniteError(ArithmeticError):
    """NaN or inf where training cannot go on."""
