"""Who is let in: callers of hooks, and readers of the governance API.

    callers, readers   their files; `files` how one is read, `addresses` where keys may come from
    keysets, tokens    issuers' keys, and the check of one token
    door, reader_door  what the routes ask; `roles` says which role reads what

Used tokens of callers are kept by `cds_service/db/claims.py`.
"""
