"""FHIR in, plain values out: decoding, codes, units, the patient record, features and outcomes.

Knows nothing of models, the web or the database. The other rooms read a `PatientRecord` and the
feature values computed from it; they never read FHIR themselves. The FHIR client has its place
here as well (`fhir_adapters/client.py`), when there is one.
"""
