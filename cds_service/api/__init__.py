"""What the governance API hands out: pages, streams and their forms. Called by `routes/`.

paging (filters, cursors) --> exports (one audited call) --> formats (JSON, CSV, Parquet, FHIR)
                                                         --> streaming
risk_assessments: a prediction as FHIR, in words of ours
"""
