"""The tables: the prediction log with its vault, and what was decided. No patient in clear.

Columns that questions are asked of stand alone; what is read back whole stands as JSON text.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Date,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

CHAIN_PLACE = ("organisation", "chain_day", "chain_writer", "chain_sequence")
"""Where a row stands in the chains: one chain per organisation, day (UTC) and writing process."""


def _chained() -> list[Column[Any]]:
    """The columns of a row in a chain; docs/tamper-evidence.md says what they prove."""
    return [
        Column("chain_day", Date),
        Column("chain_writer", String(36)),
        Column("chain_sequence", Integer),
        Column("commitment", LargeBinary, comment="salted SHA-256 of the row"),
        Column("link", LargeBinary, comment="SHA-256 of the link before it and the commitment"),
    ]


predictions = Table(
    "predictions",
    metadata,
    Column("prediction_id", String(36), primary_key=True),
    # who asked, of what, and whether it was asked before
    Column("organisation", String(64), nullable=False),
    Column("unit", String(64)),
    Column("caller", String(128), nullable=False),
    Column("service", String(64), nullable=False),
    Column("hook", String(64), nullable=False),
    Column("hook_instance", String(36), nullable=False),
    Column("content_digest", String(64), nullable=False),
    Column("context_digest", String(64), nullable=False, server_default=""),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("attempt_of", String(36)),
    # which model, how it was run
    Column("model_id", String(64), nullable=False),
    Column("model_version", String(32), nullable=False),
    Column("package_checksum", String(64), nullable=False),
    Column("software_version", String(32), nullable=False),
    Column("mode", String(16), nullable=False),
    Column("arm", String(32)),
    Column("language", String(8), nullable=False),
    # about whom, when
    Column("patient_pseudonym", String(32), nullable=False),
    Column("encounter_pseudonym", String(32)),
    Column("as_of", DateTime(timezone=True), nullable=False),
    Column("index_time", DateTime(timezone=True)),
    Column("computed_at", DateTime(timezone=True), nullable=False),
    # what came out
    Column("status", String(24), nullable=False),
    Column("reason", String(256)),
    Column("returned", String(32), nullable=False),
    Column("state", String(16), nullable=False, comment="the version's state when it answered"),
    # why it may be kept, and what it takes to compute it again
    Column("purpose", String(32), nullable=False, server_default="treatment"),
    Column("legal_ground", String(128), nullable=False, server_default=""),
    Column("pseudonym_key", String(16), nullable=False, server_default="0", comment="its id"),
    Column("digest_key", String(16), nullable=False, server_default="0", comment="never changed"),
    Column("libraries", String(128), nullable=False, server_default=""),
    Column("erasure", String(36), comment="the decision that took payload and identity away"),
    *_chained(),
    # a call is asked of one version in one state and mode: the same again finds its row, and after
    # a version was paused, withdrawn or replaced, or the site silenced, it gets what holds now;
    # other data under the same context are a further attempt
    UniqueConstraint(
        "organisation", "service", "hook", "hook_instance", "package_checksum", "state",
        "mode", "attempt", name="uq_predictions_call",
    ),
    UniqueConstraint(*CHAIN_PLACE, name="uq_predictions_chain"),
    Index(None, "model_id", "as_of"),
    Index(None, "patient_pseudonym"),
    Index(None, "organisation", "computed_at", "prediction_id"),
)  # fmt: skip
"""One row a prediction; what it says of the patient's health is its payload. Rows older than the
chain have no place in it."""

prediction_payloads = Table(
    "prediction_payloads",
    metadata,
    Column("prediction_id", String(36), nullable=False),
    Column("computed_at", DateTime(timezone=True), nullable=False),
    Column("salt", LargeBinary, comment="of the commitment; null for rows older than the chain"),
    Column("features", Text, comment="values with provenance; null for calls not eligible"),
    Column("document", Text, nullable=False, comment="the prediction, sources and cards left out"),
    Column("response", Text, nullable=False, comment="the body that was returned"),
    Column("timings", Text, nullable=False, comment="milliseconds per stage"),
    PrimaryKeyConstraint("prediction_id", "computed_at"),
    postgresql_partition_by="RANGE (computed_at)",
)
"""What a prediction says of a patient's health, under pseudonym; PostgreSQL keeps a table a month.
Erasure deletes the row."""

vault_keys = Table(
    "vault_keys",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("organisation", String(64), nullable=False),
    Column("patient_pseudonym", String(32), nullable=False),
    Column("cpr_pseudonym", String(32), comment="null where no CPR number was sent"),
    Column("pseudonym_key", String(16), nullable=False),
    Column("seal_key", String(16), nullable=False, comment="the id of the key it is wrapped with"),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("organisation", "patient_pseudonym", name="uq_vault_keys_patient"),
    Index(None, "cpr_pseudonym"),
)
"""One data key per patient and organisation, wrapped with the organisation's key. Without its row,
nobody can unseal what was sealed under it."""

vault_entries = Table(
    "vault_entries",
    metadata,
    Column("prediction_id", String(36), primary_key=True),
    Column("key_id", String(36), ForeignKey("vault_keys.id", name="fk_vault_entries_key")),
    Column("sealed", LargeBinary, nullable=False, comment="references, AES-GCM, see vault.py"),
    Index(None, "key_id"),
)
"""Who a prediction is about: patient, encounter, user and source resources, sealed. `key_id` is
null for rows older than the vault, which are sealed with the key of the seals itself."""

audit_entries = Table(
    "audit_entries",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("organisation", String(64), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("who", String(128), nullable=False),
    Column("role", String(32), nullable=False),
    Column("what", String(64), nullable=False),
    Column("subject", String(64), comment="a prediction's id, a pseudonym, a model's version"),
    Column("why", String(1000), nullable=False, server_default=""),
    Column("details", Text, nullable=False, server_default="{}", comment="counts and filters"),
    Column("salt", LargeBinary, nullable=False),
    *_chained(),
    UniqueConstraint(*CHAIN_PLACE, name="uq_audit_entries_chain"),
    Index(None, "organisation", "at"),
    Index(None, "subject"),
)
"""Who read, exported or changed what, when and why. Rows are only ever added."""

erasures = Table(
    "erasures",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("organisation", String(64), nullable=False),
    Column("patient_pseudonym", String(32), nullable=False),
    Column("pseudonym_key", String(16), nullable=False),
    Column(
        "decision", String(16), nullable=False, comment="granted, refused, restricted, destroyed"
    ),
    Column("ground", String(1000), nullable=False),
    Column("who", String(128), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("predictions", Integer, nullable=False, comment="how many it took away"),
    Column("key_id", String(36), ForeignKey("vault_keys.id", name="fk_erasures_key")),
    Column("sealed", LargeBinary, comment="whom a restriction that stands is about"),
    Index(None, "organisation", "patient_pseudonym"),
    Index(None, "key_id"),
)
"""What was decided when somebody asked to be erased. Rows are only ever added. A restriction keeps
FHIR base and Patient.id under the patient's data key until another decision ends it, so that it can
follow the patient to the pseudonym of a new key; null in rows older than that."""

undelivered = Table(
    "undelivered",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("prediction_id", String(36), nullable=False),
    Column("how", String(16), nullable=False, comment="late or disconnected"),
    Column("at", DateTime(timezone=True), nullable=False),
    Index(None, "prediction_id"),
)
"""Answers that did not reach their caller in time. Rows are only ever added."""

feedback = Table(
    "feedback",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("organisation", String(64), nullable=False),
    Column("caller", String(128), nullable=False),
    Column("service", String(64), nullable=False),
    Column("card", String(64), nullable=False),
    Column("prediction_id", String(36), comment="null: no card of ours, or not of this caller's"),
    Column("outcome", String(16), nullable=False),
    Column("reason", Text, comment="the override reason's codes, JSON; no comments"),
    Column("accepted", Text, comment="the accepted suggestions' ids, JSON"),
    Column("outcome_at", DateTime(timezone=True)),
    Column("received_at", DateTime(timezone=True), nullable=False),
    Index(None, "prediction_id"),
)
"""What users did with cards, as their systems report it. Rows are only ever added."""

token_claims = Table(
    "token_claims",
    metadata,
    Column("claim", String(64), primary_key=True, comment="digest of issuer and jti"),
    Column("body_digest", String(64), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Index(None, "expires_at"),
)
"""Tokens that were used, until they expire: each is good for one body."""

model_states = Table(
    "model_states",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("model_id", String(64), nullable=False),
    Column("version", String(32), nullable=False),
    Column("package_checksum", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("who", String(128), nullable=False),
    Column("why", String(1000), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)
"""What was decided of each version, by whom and why. Rows are only ever added."""

model_records = Table(
    "model_records",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("model_id", String(64), nullable=False),
    Column("version", String(32), nullable=False),
    Column("package_checksum", String(64), nullable=False),
    Column("intended_purpose", String(2000), nullable=False),
    Column("regulatory_route", String(16), nullable=False),
    Column("ai_act_role", String(16), nullable=False),
    Column("clinical_owner", String(128), nullable=False),
    Column("who", String(128), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)
"""What a site put on record of each version. Rows are only ever added; the newest of the same files
holds."""

model_hit_rates = Table(
    "model_hit_rates",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("model_id", String(64), nullable=False),
    Column("version", String(32), nullable=False),
    Column("package_checksum", String(64), nullable=False),
    Column("head", String(64), nullable=False),
    Column("threshold", Float, nullable=False),
    Column("ppv", Float, nullable=False),
    Column("low", Float, nullable=False),
    Column("high", Float, nullable=False),
    Column("flagged", Integer, nullable=False),
    Column("events", Integer, nullable=False),
    Column("first_index_time", DateTime(timezone=True), nullable=False),
    Column("last_index_time", DateTime(timezone=True), nullable=False),
    Column("synthetic", Boolean, nullable=False),
    Column("report_digest", String(64), nullable=False),
    Column("who", String(128), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)
"""What local validations found of each version's cards: counts of a whole study, nothing of a
patient. Rows are only ever added; the newest of the same files holds."""
