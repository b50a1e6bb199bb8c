"""The manifest of a ready booster as far as the booster says it: names, order, outcome or classes.

Everything else is a person's to decide and begins with `DECIDE`, which every check refuses by its
path: nothing here is a guess that would pass. Called by `varsel models init`.
"""

from __future__ import annotations

import json
from pathlib import Path

from models.boosters import (
    BINARY,
    RANKED,
    BoosterFacts,
    best_rounds_only,
    facts_of,
    read_booster,
    require_shape,
    try_booster,
)
from models.errors import PackageRefused
from models.manifest import SCHEMA_VERSION, folder_id

HEAD, RANKING = "outcome", "ranking"
"""What the only head, or the only ranking, of a skeleton is called."""


def write_skeleton(booster_file: Path, folder: Path) -> BoosterFacts:
    """Write the skeleton of a package around a booster; what the booster holds as it was copied.

    Where early stopping chose a round, the rounds after it are left out. Raises PackageRefused for
    a booster that cannot be served, and for a folder with a manifest in it.
    """
    model_id = folder_id(folder)
    if (folder / "manifest.toml").exists():
        raise PackageRefused(model_id, "manifest.toml is there already, and is not overwritten")
    try:
        try_booster(booster_file)
        booster = best_rounds_only(read_booster(booster_file))
        facts = facts_of(booster)
        require_shape(facts, RANKED if facts.objective == RANKED else BINARY)
        head = folder / "heads" / (RANKING if facts.classes else HEAD)
        head.mkdir(parents=True, exist_ok=True)
        (head / "booster.ubj").write_bytes(bytes(booster.save_raw("ubj")))
        (folder / "manifest.toml").write_text(skeleton(model_id, facts), encoding="utf-8")
    except OSError as error:
        raise PackageRefused(model_id, f"{error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise PackageRefused(model_id, f"{booster_file.name}: {error}") from None
    return facts


def skeleton(model_id: str, facts: BoosterFacts) -> str:
    """The text of `manifest.toml`."""
    parts = [
        _TOP.format(schema=SCHEMA_VERSION, id=_quoted(model_id)),
        _ranking(facts.classes) if facts.classes else _HEAD.format(id=HEAD),
        *(_feature(place, facts) for place in range(facts.columns)),
    ]
    return "\n".join(parts)


def _ranking(classes: int) -> str:
    return "".join(
        [_RANKING.format(id=RANKING, n=classes)]
        + [_CLASS.format(place=place) for place in range(classes)]
    )


def _feature(place: int, facts: BoosterFacts) -> str:
    name = facts.names[place] if facts.names else f"DECIDE: column {place + 1} of the booster"
    return _FEATURE.format(name=_quoted(name))


def _quoted(text: str) -> str:
    """A TOML string: one of JSON, but for the control character that only JSON lets stand."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


_TOP = """\
# The manifest of a model from elsewhere. What begins with DECIDE is yours to decide: nothing is
# served before. The manual: docs/packages.md; the words of the features: docs/feature-language.md.
schema_version = {schema}
id = {id}
version = "DECIDE: of this package, such as 1.0.0"
synthetic = "DECIDE: true where it was trained on synthetic data, else false"
title = {{ da = "DECIDE", en = "DECIDE" }}
hooks = ["DECIDE: encounter-discharge, patient-view"]
override_system = "https://varsel.dk/fhir/CodeSystem/override-reason"
scope = "DECIDE: [] where it is for everybody, else [[scope]] tables: whom it is not for"

[description]
da = "DECIDE: hvad den beregner, for hvem, og på hvilke data den er trænet"
en = "DECIDE: what it estimates, for whom, and which data it was trained on"

[index]
kind = "DECIDE: stay, finding or as-of: what the question is asked of"

[prefetch.patient]
template = "Patient/{{{{context.patientId}}}}"
resource = "Patient"
required = true

[prefetch.observations]
template = "DECIDE: Observation?patient={{{{context.patientId}}}}&_sort=-date&_count=200"
resource = "Observation"
supplies = ["DECIDE: the concepts it brings (fhir_adapters/concepts.toml)"]

[[categories]]
id = "DECIDE: one table a clinical category"
label = {{ da = "DECIDE", en = "DECIDE" }}

[[minimum]]
any_of = ["DECIDE: features of which some must be known before a number is given"]
text = {{ da = "DECIDE", en = "DECIDE" }}

[[override_reasons]]
code = "DECIDE: other"
display = {{ da = "DECIDE: Andet", en = "DECIDE: Other" }}
"""

_HEAD = """\
[[heads]]
id = "{id}"                 # heads/{id}/booster.ubj
outcome = "DECIDE: what is predicted"
horizon_days = "DECIDE: within how many days"
title = {{ da = "DECIDE", en = "DECIDE" }}
says = {{ da = "DECIDE: genindlægges inden for 30 dage", en = "DECIDE: are readmitted in 30 days" }}
threshold = "DECIDE: the risk from which a card is shown, 0 to 1"
threshold_source = "DECIDE: where that comes from"
# rule = what counts as the outcome in later data; without it the head is served, never validated

[[heads.bands]]
id = "DECIDE: low"
from_risk = 0.0
label = {{ da = "DECIDE", en = "DECIDE" }}
"""

_RANKING = """\
[[rankings]]
id = "{id}"                 # heads/{id}/booster.ubj
outcome = "DECIDE: what is predicted"
title = {{ da = "DECIDE", en = "DECIDE" }}
shown = "DECIDE: how many of the {n} classes a card lists"
card_from = "DECIDE: the probability of the first class from which a card is shown, 0 to 1"
"""

_CLASS = """
[[rankings.classes]]
id = "DECIDE: class {place} of the booster"
label = {{ da = "DECIDE", en = "DECIDE" }}
"""

_FEATURE = """\
[[features]]
name = {name}
category = "DECIDE"
recipe = "DECIDE"
of = ["DECIDE"]
unit = "DECIDE: the unit it was trained in, or empty"
label = {{ da = "DECIDE", en = "DECIDE" }}
"""
