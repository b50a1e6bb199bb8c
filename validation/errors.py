"""What can go wrong in a validation. All of it is about the input; none of it is our failure.

    ValidationError                 exit code 2 on the command line, 422 over HTTP
    ├── InvalidFrame                a column is absent, or holds what it may not: names the column
    └── TooFewEvents                too few patients with, or without, the outcome

Messages hold column names and counts, never values of patients.
"""


class ValidationError(Exception):
    """The validation cannot be made from what was given."""


class InvalidFrame(ValidationError):
    """A column of the frame of predictions is absent or holds what it may not."""

    def __init__(self, column: str, problem: str) -> None:
        super().__init__(f"column {column!r}: {problem}")
        self.column = column


class TooFewEvents(ValidationError):
    """Too few patients with, or without, the outcome for any interval to mean something."""

    def __init__(self, with_event: int, without_event: int, *, needed: int) -> None:
        super().__init__(
            f"{with_event} patients with the outcome and {without_event} without; "
            f"at least {needed} of each are needed"
        )
        self.with_event = with_event
        self.without_event = without_event
