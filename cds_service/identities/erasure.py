"""A patient's rights over the log: who is meant, and what is decided and done about it.

Register first, database second: a decision that a crash cut in two is done again from the register.
What stays of an erased prediction is de-identified, not anonymous; docs/privacy.md says what that
is. The SQL is in `db/patients.py` and `db/erasure.py`; called by `varsel privacy`.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cds_service.db.audit import AuditEntry
from cds_service.db.erasure import (
    DESTROYED,
    GRANTED,
    Decide,
    Decision,
    Destroy,
    Erase,
    are_keys_left,
    is_left_to_destroy,
    is_left_to_erase,
    stands_on_record,
    why_not_destroy,
)
from cds_service.db.log import PredictionLog
from cds_service.db.patients import Named, Whom, entries_by_cpr, ids_of
from cds_service.errors import BadRequest
from cds_service.identities.privacy import Privacy
from cds_service.identities.register import Erasure, append_erasure, read_register

Answer = Literal["granted", "refused", "restricted"]
"""What a controller answers who asks to be erased (GDPR art. 17), or not to be read (art. 18)."""
LEFT = (
    "What is left of an erased prediction (that it was made, when, by which model, for which ward, "
    "and its commitment in the chain) is de-identified, not anonymous: the record system's own log "
    "still knows the call."
)


@dataclass(frozen=True, slots=True)
class Asking:
    """Who does something about a patient, and why: both go on record. Of what is decided, why is
    the ground."""

    organisation: str
    who: str
    why: str

    def entry(self, what: str, subject: str | None, **details: object) -> AuditEntry:
        """The audit entry of what is done."""
        return AuditEntry(
            organisation=self.organisation,
            who=self.who,
            role="operator",
            what=what,
            subject=subject,
            why=self.why,
            details=details,
        )

    def decision(self, answer: str) -> Decision:
        """A decision, made now."""
        return Decision(str(uuid.uuid4()), answer, self.why, self.who, datetime.now(UTC))


def patient_of(privacy: Privacy, organisation: str, *, fhir_base: str, patient: str) -> Whom:
    """A patient of a FHIR server by their id, under every key."""
    found = privacy.pseudonyms(organisation, fhir_base, "Patient", patient)
    named = {
        privacy.pseudonym(organisation, fhir_base, "Patient", patient): Named(fhir_base, patient)
    }
    return Whom(organisation, {pseudonym: key_id for key_id, pseudonym in found.items()}, named)


def patient_by_cpr(log: PredictionLog, privacy: Privacy, asking: Asking, cpr: str) -> Whom:
    """A patient by CPR number, as every patient of a FHIR server they are known as.

    Opens the vault, and puts that on record before. Raises SealBroken, LogUnavailable, NotDurable.
    """
    sent = privacy.pseudonyms(asking.organisation, "CPR", cpr)
    subject = next(iter(sent.values()))
    log.audit(asking.entry("find", subject, vault="opened", by="CPR number")).result()
    pseudonyms: dict[str, str] = {}
    named: dict[str, Named] = {}
    for row in entries_by_cpr(log.engine, asking.organisation, list(sent.values())):
        opened = privacy.unseal(row)
        one = patient_of(
            privacy, asking.organisation, fhir_base=opened["fhir_base"], patient=opened["patient"]
        )
        pseudonyms |= one.pseudonyms
        named |= one.named
    return Whom(asking.organisation, pseudonyms, named)


def require_known(whom: Whom) -> Whom:
    """The patient; BadRequest where no CPR number led to one."""
    if not whom.pseudonyms:
        raise BadRequest("nobody in the log was sent with this CPR number", field="--cpr")
    return whom


def erase(log: PredictionLog, register: Path, asking: Asking, whom: Whom) -> tuple[str, int]:
    """The id of the decision, and how many predictions it took away.

    Raises SetupError where the register cannot be written; nothing is erased then.
    """
    decision = asking.decision(GRANTED)
    ids = ids_of(log.engine, whom)
    append_erasure(register, _line("erase", decision, whom.organisation, whom=whom, ids=ids))
    audit = asking.entry("erase", subject_of(whom), decision=decision.id)
    return decision.id, log.commit(Erase(decision, whom, tuple(ids), audit)).result()


def decide(log: PredictionLog, asking: Asking, whom: Whom, answer: Answer) -> str:
    """The id of a decision that takes nothing away; the newest one about a patient holds."""
    decision = asking.decision(answer)
    log.commit(Decide(decision, whom, asking.entry(answer, subject_of(whom)))).result()
    return decision.id


def destroy(
    log: PredictionLog, register: Path, asking: Asking, whom: Whom | None
) -> tuple[str, int]:
    """The id of the decision, and how many data keys were destroyed: a patient's, or (None) all of
    the organisation's. Raises BadRequest where older entries would still open, or patients of the
    organisation are restricted, SetupError as `erase`.
    """
    fault = why_not_destroy(log.engine, asking.organisation, whom)
    if fault is not None:
        raise BadRequest(fault)
    decision = asking.decision(DESTROYED)
    ids = ids_of(log.engine, whom) if whom else []
    append_erasure(register, _line("destroy", decision, asking.organisation, whom=whom, ids=ids))
    audit = asking.entry("destroy", subject_of(whom) if whom else None, decision=decision.id)
    write = Destroy(decision, asking.organisation, whom, tuple(ids), audit)
    return decision.id, log.commit(write).result()


def replay_erasures(log: PredictionLog, register: Path, who: str, why: str) -> dict[str, int]:
    """By the id of each decision that had to be done again, what it took away: predictions, or data
    keys. One that is in the database and has nothing left to take is not done again.
    """
    done = {}
    for line in read_register(register):
        again = _again(log, line, Asking(line.organisation, who, why))
        if again is not None:
            done[line.id] = log.commit(again).result()
    return done


def _again(log: PredictionLog, line: Erasure, asking: Asking) -> Erase | Destroy | None:
    engine, at = log.engine, line.at
    known = stands_on_record(engine, line.id)
    whom = Whom(line.organisation, line.pseudonyms) if line.pseudonyms else None
    subject = subject_of(whom) if whom else None
    audit = asking.entry(f"replay {line.what}", subject, decision=line.id)
    if line.what == "erase" and whom is not None:
        if known and not is_left_to_erase(engine, whom, line.predictions, at):
            return None
        decision = Decision(line.id, GRANTED, line.ground, line.who, at)
        return Erase(decision, whom, tuple(line.predictions), audit)
    if known and not (
        are_keys_left(engine, line.organisation, at)
        if whom is None
        else is_left_to_destroy(engine, whom, line.predictions, at)
    ):
        return None
    decision = Decision(line.id, DESTROYED, line.ground, line.who, at)
    return Destroy(decision, line.organisation, whom, tuple(line.predictions), audit)


def subject_of(whom: Whom) -> str:
    """How the audit trail names a patient: by the pseudonym of the key in use."""
    return next(iter(whom.pseudonyms))


def _line(
    what: Literal["erase", "destroy"],
    decision: Decision,
    organisation: str,
    *,
    whom: Whom | None,
    ids: list[str],
) -> Erasure:
    return Erasure(
        id=decision.id,
        what=what,
        organisation=organisation,
        at=decision.at,
        who=decision.who,
        ground=decision.ground,
        pseudonyms=dict(whom.pseudonyms) if whom else {},
        predictions=ids,
    )
