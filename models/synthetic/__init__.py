"""Synthetic cohorts: invented patients as FHIR R4 Bulk Data, for building and testing packages.

`anchors` holds the published numbers, `people` draws who they are, `contacts` lays out their
hospital contacts in time, `readmission` draws risks and outcomes in blocks, `charts` goes from a
block to one patient, `fhir_lines` (with `codings`) writes that patient as FHIR, `bulk` writes a
cohort to a folder. Nothing here reads FHIR, trains or scores. Called by the command line
(`varsel cohort synth`) and by the training gate.
"""

from __future__ import annotations

from collections.abc import Mapping

from models.synthetic.bulk import Generator
from models.synthetic.charts import READMISSION
from models.synthetic.surgery.records import SURGERY
from models.synthetic.telemonitoring.cohort import COPD, HEART_FAILURE

GENERATORS: Mapping[str, Generator] = {
    g.model: g for g in (READMISSION, COPD, HEART_FAILURE, SURGERY)
}
"""The generator of each model's cohort, by model id."""
