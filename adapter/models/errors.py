"""The one error of this package."""


class ModelError(Exception):
    """A model cannot be taken as it is; the message is one line that says why, and what to do."""


def first_line(error: BaseException) -> str:
    """What a library's exception says, without the rest of it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__
