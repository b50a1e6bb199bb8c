r"""Who a prediction is about, kept apart from what it says: keys, pseudonyms, the vault, erasure.

keyring --> privacy (pseudonyms, digests) --> the log's tables
       \--> vault (data keys, seals)      --> its own tables
erasure, retention, rotation, subject_access: what `varsel privacy` does
register: granted erasures, kept apart from database backups
personal, ground: which columns are personal, and why they may be kept
"""
