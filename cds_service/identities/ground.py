"""On which legal ground predictions are kept, where a site names no other."""

LEGAL_GROUND = "GDPR 6(1)(e), 9(2)(h); sundhedsloven § 42 a"
"""Necessary in current treatment: Regulation (EU) 2016/679, and the Danish Health Act (2026-11)."""
