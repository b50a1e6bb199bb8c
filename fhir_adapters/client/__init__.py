"""Fetching what a prefetch lacks from the FHIR server a caller registered, and nowhere else.

`guard` says which URLs and addresses are allowed, `fetch` is the one place requests are sent from,
`searches` turns templates into URLs and pages into one Bundle, `completion` decides what is lacking
and fetches that. Nothing here knows of hooks: the edge passes bases, tokens and time.
"""
