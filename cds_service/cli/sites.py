"""`varsel doctor lgl` and `varsel doctor request`: for who connects a record system to the service.

The sheet to type in, and what is wrong with a request that was saved. Neither prints anything of a
patient: keys, types, counts and states alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import typer

from cds_service.assess import require_answers
from cds_service.cli.console import JSON_HELP, print_json
from cds_service.cli.scoring import read_input
from cds_service.epic import STRIPPED, TRIGGER, is_stripped, trigger_of
from cds_service.errors import BadRequest, RequestRefused, SetupError
from cds_service.lgl import sheet_of, sheet_text
from cds_service.protocol import (
    NO_NAMES,
    HookCall,
    decode_call,
    hook_of,
    our_prefetch,
    read_prefetch,
    require_patient,
)
from cds_service.service import find_folder, open_callers, open_registry
from cds_service.settings import Settings, read_settings
from cds_service.wording import printable
from fhir_adapters.errors import UnreadableInput
from fhir_adapters.facts import build_record
from models.package import Package
from models.registry import admit

SERVICE_HELP = "Only this service"


class Finding(NamedTuple):
    """One thing looked at in a request: of which service, whether it is well, what was found."""

    service: str
    check: str
    ok: bool
    says: str


def lgl(
    service: Annotated[str | None, typer.Option("--service", help=SERVICE_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Print, per service, the sheet a site's Epic analyst types in."""
    settings = read_settings()
    sheets = [sheet_of(p.manifest, settings.url) for p in _packages(settings, service)]
    if as_json:
        print_json([_as_object(sheet) for sheet in sheets])
    else:
        print("\n\n".join(sheet_text(sheet) for sheet in sheets))


def request(
    file: Annotated[str, typer.Argument(help="A saved hook request, gzip allowed; - for stdin")],
    service: Annotated[str | None, typer.Option("--service", help=SERVICE_HELP)] = None,
    caller: Annotated[
        str | None, typer.Option("--caller", help="Whose prefetch keys it uses (callers file)")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Explain a saved hook request, per service. Exit code 1 where something is wrong with it."""
    settings = read_settings()
    raw = read_input(file, settings.max_body_bytes)
    keys = _prefetch_keys(settings, caller)
    hook = hook_of(raw)
    packages = _packages(settings, service)
    asked = [p for p in packages if hook in p.manifest.hooks] or packages
    findings = [f for p in asked for f in examine_request(raw, p, keys.get(p.id, NO_NAMES))]
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        for f in findings:
            print(printable(f"{'ok ' if f.ok else 'BAD'}  {f.service} {f.check}: {f.says}"))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _as_object(part: Any) -> Any:
    """A sheet as JSON has it: named tuples become objects."""
    if isinstance(part, tuple) and hasattr(part, "_asdict"):
        return {name: _as_object(value) for name, value in part._asdict().items()}
    return [_as_object(one) for one in part] if isinstance(part, list) else part


def _packages(settings: Settings, service: str | None) -> list[Package]:
    """The packages of this installation, or the one of a service; SetupError for none."""
    if service is None:
        registry = open_registry(settings)
        if not registry.packages:
            faults = [f"{name}: {fault}" for name, fault in registry.refused.items()]
            raise SetupError("; ".join(["no model can be served here", *faults]))
        return list(registry.packages.values())
    return [admit(find_folder(service), allow_synthetic=settings.allows_synthetic)]


def _prefetch_keys(settings: Settings, caller: str | None) -> Mapping[str, Mapping[str, str]]:
    """By service, a caller's own prefetch keys; SetupError where there is no such caller."""
    if caller is None:
        return {}
    found = next((c for c in open_callers(settings).listed if c.name == caller), None)
    if found is None:
        raise SetupError(f"--caller: none is called {caller}")
    return found.prefetch_keys


# ---- a request ------------------------------------------------------------------------------


def examine_request(raw: bytes, package: Package, names: Mapping[str, str]) -> list[Finding]:
    """What one service finds of a request's bytes, in the order in which it would find it."""
    try:
        call = decode_call(raw, package.manifest.hooks, names=names)
    except BadRequest as refused:
        return [Finding(package.id, "request", ok=False, says=f"{refused.field}: {refused}")]
    return [
        Finding(package.id, "request", ok=True, says=_said_of(call)),
        *([_stripped(package)] if is_stripped(call) else []),
        *_examine_data(call, package),
    ]


def _said_of(call: HookCall) -> str:
    """What kind of a call it is, and what came with it."""
    trigger = trigger_of(call.extension)
    said = [f"hook {call.hook}"]
    if TRIGGER in call.extension:
        said.append(f"Epic's trigger {trigger or 'not one that Epic lists'}")
    said.append(f"{len(call.prefetch)} prefetch keys")
    said.append("a FHIR server" if call.fhir_server else "no FHIR server")
    said.append("with a token" if call.authorization else "without a token")
    return ", ".join(said)


def _stripped(package: Package) -> Finding:
    said = f"{STRIPPED}. Here the path ends in /cds-services/{package.id}"
    return Finding(package.id, "epic", ok=False, says=said)


def _examine_data(call: HookCall, package: Package) -> Iterator[Finding]:
    try:
        gathered = read_prefetch(call, package)
    except UnreadableInput as error:
        yield Finding(package.id, "fhir", ok=False, says=f"{error.field}: {error}")
        return
    for key, query in package.manifest.prefetch.items():
        answer = gathered.answer(key)
        said = answer.state if answer.reason is None else f"{answer.state}, {answer.reason}"
        what = "required; " if query.required else ""
        lacks = query.required and answer.state in ("absent", "failed")
        says = f"{what}{said}, {answer.entries} entries"
        yield Finding(package.id, f"prefetch {key}", ok=not lacks, says=says)
    strange = sorted(our_prefetch(call, package).keys() - package.manifest.prefetch.keys())
    if strange:
        says = f"no query of the service, and prove none: {', '.join(strange)}"
        yield Finding(package.id, "other keys", ok=True, says=says)
    try:
        require_answers(package, gathered)
        require_patient(package, gathered, call.patient_id)
    except RequestRefused as refused:
        yield Finding(package.id, "answer", ok=False, says=f"{refused.status}, {refused}")
        return
    record = build_record(
        gathered, package.wanted, patient_id=call.patient_id, base=call.fhir_server
    )
    counts = Counter(f"{trouble.code}: {trouble.text}" for trouble in record.troubles)
    for text, n in sorted(counts.items()):
        wrong = text.startswith("wrong-patient")
        yield Finding(package.id, "resources", ok=not wrong, says=f"{text} ({n})")
