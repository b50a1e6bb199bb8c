"""The synthetic cohort of colorectal cancer surgery: invented patients as FHIR R4 Bulk Data.

`anchors` holds the published numbers, `people` draws who they are and what is planned, `risks` the
true risks of the five heads and what happens, `cohort` blocks and times, `before` and `after`
write the record (`resources` and `codings` with them), `records` goes from a block to one patient.
Nothing here reads FHIR, trains or scores. Called through `models.synthetic.GENERATORS`.
"""
