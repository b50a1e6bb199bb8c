"""The tables: the prediction log, and what was decided about models. No patient in clear.

Columns that questions are asked of stand alone; what is read back whole stands as JSON text.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
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
    Column("features", Text, comment="values with provenance; null for calls not eligible"),
    Column("document", Text, nullable=False, comment="the prediction, sources and cards left out"),
    Column("response", Text, nullable=False, comment="the body that was returned"),
    Column("timings", Text, nullable=False, comment="milliseconds per stage"),
    Column("sealed", LargeBinary, nullable=False, comment="references, AES-GCM, see privacy.py"),
    Column("state", String(16), nullable=False, comment="the version's state when it answered"),
    # a call is asked of one version in one state and mode: the same again finds its row, and after
    # a version was paused, withdrawn or replaced, or the site silenced, it gets what holds now;
    # other data under the same context are a further attempt
    UniqueConstraint(
        "organisation", "service", "hook", "hook_instance", "package_checksum", "state",
        "mode", "attempt", name="uq_predictions_call",
    ),
    Index(None, "model_id", "as_of"),
    Index(None, "patient_pseudonym"),
)  # fmt: skip

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
