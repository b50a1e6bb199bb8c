"""A change of keys carried through the log, part by part, until the old key is not needed.

Called by `varsel privacy rotate`; the SQL is in `db/rotation.py`. docs/privacy.md says in which
order keys are changed.
"""

from __future__ import annotations

from collections.abc import Callable

from cds_service.db.log import PredictionLog
from cds_service.db.rotation import (
    Part,
    Rekey,
    RekeyRestriction,
    RemoveUnused,
    Reseal,
    Rewrap,
    patients_under_other_keys,
    restrictions_under_other_keys,
)
from cds_service.db.transaction import Write
from cds_service.identities.privacy import Privacy


def rotate_seals(log: PredictionLog, privacy: Privacy) -> dict[str, int]:
    """How many data keys were wrapped with the key in use, and how many entries older than the
    vault were sealed under a data key. Raises SealBroken, NotDurable.
    """
    vault = privacy.vault
    resealed = _each_part(log, lambda after: Reseal(vault, after))
    return {
        "data_keys": _each_part(log, lambda after: Rewrap(vault, after)),
        "entries": resealed,
    }


def rotate_pseudonyms(log: PredictionLog, privacy: Privacy) -> dict[str, int]:
    """How many patients, and predictions of theirs, got pseudonyms of the key in use; and how many
    restrictions of patients who have no predictions.

    Opens every entry of these patients. Raises SealBroken, LogUnavailable, NotDurable.
    """
    changed, patients, after = 0, 0, ""
    while True:
        found, last = patients_under_other_keys(log.engine, privacy.pseudonym_key, after)
        if last is None:
            break
        # handed in together, they share commits
        waiting = [log.commit(Rekey(privacy, patient)) for patient in sorted(found)]
        done = [one.result() for one in waiting]
        patients, changed, after = patients + sum(map(bool, done)), changed + sum(done), last
    left = restrictions_under_other_keys(log.engine, privacy.pseudonym_key)
    carried = sum(log.commit(RekeyRestriction(privacy, one)).result() for one in left)
    log.commit(RemoveUnused(privacy.pseudonym_key)).result()
    return {"patients": patients, "predictions": changed, "restrictions": carried}


def _each_part(log: PredictionLog, write: Callable[[str], Write[Part]]) -> int:
    changed, after = 0, ""
    while True:
        part = log.commit(write(after)).result()
        if part.last is None:
            return changed
        changed, after = changed + part.changed, part.last
