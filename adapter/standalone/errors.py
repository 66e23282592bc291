"""The one error of this package."""


class StartError(Exception):
    """`up` cannot start here; the message is one line that says why and what to do."""
