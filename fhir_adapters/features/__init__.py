"""The feature language: what a manifest may say, and the one path from a record to values.

`language.py` is the grammar, `recipes.py` and `derived.py` the words, `compute.py` the sentence:
`FeatureSet.compute(record, as_of)` is called by serving, training, validation and monitoring alike.
"""
