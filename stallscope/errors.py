"""What can go wrong, in the user's words: each error carries its documented exit code.

Raised anywhere, printed in one place (``stallscope.cli``): one clear sentence that says what
happened, the probable cause and the next step.
"""


class StallscopeError(Exception):
    """An error meant for the user: its text is the whole message, no traceback is shown."""

    exit_code = 2


class UnreadableInput(StallscopeError):
    """Wrong usage, or a file that is not what was expected (exit code 2)."""


class NotObservable(StallscopeError):
    """The target cannot be observed (exit code 3)."""

    exit_code = 3


class TooLittleData(StallscopeError):
    """There is too little data to judge (exit code 4)."""

    exit_code = 4
