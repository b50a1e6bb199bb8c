"""Making a package from a cohort: the run, its worked examples, its figures and its card."""
