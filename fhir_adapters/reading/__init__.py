"""From typed resources to facts, one module per kind of finding.

`wanted.py` says what a package needs, `shared.py` what all kinds share, `versions.py` which of
several versions of one resource counts; `observations.py`, `diagnoses.py`, `medicines.py`,
`contacts.py` and `answers.py` each read one kind. `facts.py`, one level up, calls them and makes
the record.
"""
