"""The one error that users are meant to see."""


class BadInput(ValueError):
    """The user's input cannot be used. One line: the file, what was found, what was expected."""

    def __str__(self) -> str:
        """The message on one line, whatever the names in it hold."""
        return " ".join(super().__str__().split())


class Elsewhere(BadInput):
    """Bad input that another process of the same command has met, and says."""
