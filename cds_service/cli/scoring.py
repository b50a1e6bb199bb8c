"""`varsel score FILE`: score a Bundle, a resource or a hook request from a file."""

from __future__ import annotations

import re
import sys
import time
import uuid
import zlib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from cds_service.assess import (
    Asked,
    Assessment,
    Question,
    assess,
    log_row,
    require_answers,
)
from cds_service.cli.console import JSON_HELP, print_json
from cds_service.errors import BadRequest, PreconditionFailed, SetupError
from cds_service.findings import Setting
from cds_service.governance import (
    History,
    hit_rates_of,
    standing_of,
    stands_of,
    version_of,
)
from cds_service.identities.privacy import Privacy
from cds_service.protocol import decode_call, hook_of, read_prefetch, require_patient
from cds_service.routes.hooks import moment_of
from cds_service.service import all_folders, find_folder, history_here, open_log
from cds_service.settings import Settings, read_settings
from cds_service.terminal import terminal_card
from fhir_adapters.decode import Gathered, decode_bundle
from fhir_adapters.errors import UnreadableInput
from models.package import Package
from models.prediction import Prediction, Standing
from models.registry import admit, load_registry

_GZIP = b"\x1f\x8b"
UNDECIDED = History()
_IS_HOOK_REQUEST = re.compile(rb'"hookInstance"\s*:')


def score(
    file: Annotated[
        str, typer.Argument(help="A Bundle or hook request, gzip allowed; - for stdin")
    ],
    model: Annotated[str | None, typer.Option("--model", help="Only this model")] = None,
    as_of: Annotated[str, typer.Option("--as-of", help="A dateTime, or latest")] = "now",
    language: Annotated[str | None, typer.Option("--language", help="da or en")] = None,
    log: Annotated[bool, typer.Option("--log", help="Write to the prediction log")] = False,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Score one patient with every model that applies, or with one.

    Where none applies, every model says why.
    """
    settings = read_settings()
    raw = read_input(file, settings.max_body_bytes)
    packages = _answering(_packages(model, settings), raw)
    spoken = _language(language, settings)
    history = history_here(settings)
    scored: list[tuple[Package, Assessment]] = []
    for package in packages:
        try:
            answer = score_one(
                package, raw, as_of=as_of, language=spoken, settings=settings, history=history
            )
        except PreconditionFailed as lacking:
            if len(packages) == 1:
                raise
            print(f"varsel: {package.id} cannot be asked: {lacking}", file=sys.stderr)
        else:
            scored.append((package, answer))
    if not scored:
        raise BadRequest("holds what no model requires", field=file)
    scored = [pair for pair in scored if _says_something(pair[1].prediction)] or scored
    answers = [answer for _, answer in scored]
    if log:
        _store(answers, settings)
    if as_json:
        print_json([answer.prediction for answer in answers])
        _end(scored)
        return
    for package, answer in scored:
        setting = Setting(answer.prediction.language, settings.zone, None)
        print(terminal_card(package.manifest, answer.prediction, setting))
        tail = f"prediction {answer.prediction.prediction_id}"
        print(f"{tail}  {'logged' if log else 'not logged (--log writes it)'}")
    _end(scored)


def _end(scored: list[tuple[Package, Assessment]]) -> None:
    """Exit 1, naming each model that failed and where, if one did."""
    failed = [(package.id, answer.failure) for package, answer in scored if answer.failure]
    for model, failure in failed:
        where = " > ".join(failure.places)
        print(f"varsel: {model} failed while scoring: {failure.kind} at {where}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def _language(asked: str | None, settings: Settings) -> Literal["da", "en"]:
    if asked is None:
        return settings.language
    if asked not in ("da", "en"):
        raise BadRequest("da or en", field="--language")
    return "da" if asked == "da" else "en"


def _packages(model: str | None, settings: Settings) -> list[Package]:
    if model:
        return [admit(find_folder(model), allow_synthetic=True)]
    registry = load_registry(all_folders(settings), allow_synthetic=True)
    for name, fault in registry.refused.items():
        print(f"varsel: {name} refused: {fault}", file=sys.stderr)
    if not registry.packages:
        raise SetupError("no model package is fit to score with")
    return list(registry.packages.values())


def _says_something(prediction: Prediction) -> bool:
    """Whether the model is for the patient, or one of its safety rules is met."""
    return prediction.status != "not-eligible" or bool(prediction.rule_alarms)


def _answering(packages: list[Package], raw: bytes) -> list[Package]:
    """The packages that answer a hook request's hook; all of them for a Bundle, or an unknown hook
    (which is then refused by name)."""
    hook = hook_of(raw) if _IS_HOOK_REQUEST.search(raw) else None
    return [p for p in packages if hook in p.manifest.hooks] or packages


def read_input(file: str, limit: int) -> bytes:
    """The bytes of a file or of standard input, unzipped, at most `limit` of them.

    Raises BadRequest where the file is not there, too large, or not what it says.
    """
    try:
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as stream:
            raw = stream.read(limit + 1)
    except OSError as error:
        raise BadRequest(error.strerror or "cannot be read", field=file) from None
    if raw[:2] == _GZIP:
        raw = _unzip(raw, limit, file)
    if len(raw) > limit:
        raise BadRequest(f"larger than {limit} bytes (VARSEL_MAX_BODY_BYTES)", field=file)
    return raw


def _unzip(raw: bytes, limit: int, file: str) -> bytes:
    """The text of a gzip file, all its members; reading stops one byte past the limit."""
    parts: list[bytes] = []
    size = 0
    while raw and size <= limit:
        unzipping = zlib.decompressobj(wbits=31)
        try:
            part = unzipping.decompress(raw, limit + 1 - size)
        except zlib.error:
            raise BadRequest("not a whole gzip file", field=file) from None
        size += len(part)
        if not unzipping.eof and size <= limit:
            raise BadRequest("not a whole gzip file", field=file)
        parts.append(part)
        raw = unzipping.unused_data
    return b"".join(parts)


def score_one(
    package: Package,
    raw: bytes,
    *,
    as_of: str,
    language: str,
    settings: Settings,
    history: History = UNDECIDED,
) -> Assessment:
    """What a package says of the one patient in some bytes; `history`: what was decided here.

    Raises UnreadableInput and RequestRefused as the hook route does.
    """
    patient_id: str | None = None
    base = ""
    if _IS_HOOK_REQUEST.search(raw):
        call = decode_call(raw, package.manifest.hooks)
        patient_id = call.patient_id
        base = call.fhir_server
        gathered = read_prefetch(call, package)
    else:
        gathered = decode_bundle(raw)
    require_answers(package, gathered)
    if patient_id is not None:
        require_patient(package, gathered, patient_id)
    now = time.time()
    question = Question(
        prediction_id=str(uuid.uuid4()),
        patient_id=patient_id,
        as_of=now if as_of == "now" else moment_of(as_of, gathered, settings.zone, "--as-of"),
        now=now,
        language=language,
        standing=_standing(package, history, demo=settings.is_demo),
        hit_rates=hit_rates_of(package, history, demo=settings.is_demo),
        zone=settings.zone,
        fhir_base=base,
    )
    return assess(package, _with_a_patient(gathered), question)


def _standing(package: Package, history: History, *, demo: bool) -> Standing:
    """How the package stands here."""
    (stand,) = stands_of([version_of(package)], history, demo=demo)
    return standing_of(stand)


def _with_a_patient(gathered: Gathered) -> Gathered:
    """The input, refused where it names no patient, with what could not be read."""
    if gathered.of("Patient"):
        return gathered
    faults = [f"{t.where}: {t.text}" for t in gathered.troubles[:3]]
    told = f" ({'; '.join(faults)})" if faults else ""
    raise UnreadableInput(f"no Patient that can be read{told}", field="Patient")


def _store(answers: list[Assessment], settings: Settings) -> None:
    privacy = Privacy(settings.keys)
    with open_log(settings) as log:
        for answer in answers:
            p = answer.prediction
            asked = Asked(
                organisation=settings.organisation,
                caller="varsel score",
                hook="command-line",
                hook_instance=str(uuid.uuid4()),
                content_digest=privacy.digest(msgspec.json.encode(p)),
                context_digest="",
                fhir_base="",
                patient_id=answer.record.patient_id,
                encounter_id=None,
                user_id=None,
            )
            log.store(log_row(answer, asked, privacy)).result()
