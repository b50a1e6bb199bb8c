"""Reference scores: published scores computed from the same record, shown beside a model's risk.

Pure functions, one module a family, each with its published tables as data: `news2`, `readmission`
(LACE, HOSPITAL), `surgery` (CR-POSSUM, SORT), `heart_failure` (MAGGIC), `copd` (DECAF, PEARL);
Charlson lies in `fhir_adapters/charlson.py`. `from_record.ReferenceScores` computes all of them
from a patient record, for the patients each applies to. docs/reference-scores.md is the manual.
"""
