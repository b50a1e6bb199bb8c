"""FHIR out: resources made of plain values, for who asks for what was predicted.

Called by `cds_service`, never while a hook is answered. `fhir.resources` is imported here alone, at
the first resource: it takes 0.4 s and some 20 MB, which answering hooks does without.
"""
