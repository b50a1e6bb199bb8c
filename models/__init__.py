"""Model packages: what one is, the registry, scoring, explanation, training, synthetic cohorts.

The packages themselves are the folders beside this file (`models/<model_id>/`, data only). The
only room that imports xgboost and shap.
"""
