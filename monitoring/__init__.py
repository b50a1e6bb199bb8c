"""Whether the world still looks like the one the model was made for: drift and data quality.

Lives here: comparing today's features with the package's reference, alarms, the drift report.
Does not live here: reading the log, features, models, the command line; frames come in.
Called by `varsel drift`. Evidently is imported by `monitoring.drift_page` alone, and that module
only when a report is drawn, so importing this room costs nothing.
"""
