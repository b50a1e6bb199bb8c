"""Who is calling: the file of callers, their keys, their tokens, and the door that lets them in.

`callers` reads the file, `keysets` fetches and keeps issuers' keys, `tokens` checks one JWT, `door`
is what the routes ask. Used tokens are kept by `cds_service/db/claims.py`.
"""
