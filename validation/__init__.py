"""Who counts, how the outcome turned out, and how well a model's risks held: pure functions.

Lives here: the cohort and its flow, statistics with their intervals, figures and the report.
Does not live here: FHIR, models, the database, the command line; a frame comes in, files go out.
Called by `varsel validate`. Nothing heavy is imported by this file: statsmodels and matplotlib
come with `validation.statistics` and `validation.plots`, which the serving process never imports.
"""
