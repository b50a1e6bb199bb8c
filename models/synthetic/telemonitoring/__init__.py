"""Synthetic telemonitoring: enrolled persons with COPD or heart failure, and a year of home sets.

Event-driven: deteriorations are drawn first, and what measurements show of them second, for a
share of them only. `anchors` holds the numbers, `people` draws who is enrolled, `course` what
happens to them, `home` what they measure, `chart` makes one person's record of it, `lines` (with
`codings`) writes it as FHIR, `cohort` draws block by block. Nothing here reads FHIR, trains or
scores. Called through `models.synthetic.GENERATORS`.
"""
