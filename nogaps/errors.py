"""The one error that users are meant to see."""


class BadInput(Exception):
    """The user's input cannot be used. One line: the file, what was found, what was expected."""
