"""The log's predictions as a table that leaves the house; called by `varsel export`.

    db/cohorts.py --rows--> cohort (a flat table) <--codes-- pseudonyms
                              |
              files: CSV, Parquet, JSON, reports; the owner's alone

What an anonymous or a synthetic table must meet is measured in `validation/`.
"""
