"""What can go wrong in a drift report. All of it is about the input; none of it is our failure.

    MonitoringError                 exit code 2 on the command line, 422 over HTTP
    └── InvalidComparison           no columns named, one named twice, or an empty reference

A column that cannot be compared is not an error: it is named in the report with its reason.
"""


class MonitoringError(Exception):
    """The report cannot be made from what was given."""


class InvalidComparison(MonitoringError):
    """There is nothing to compare, or it is not clear what with what."""
