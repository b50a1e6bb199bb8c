"""Questionnaire answers, made numbers by the package's own table."""

from __future__ import annotations

from collections.abc import Iterator

from fhir_adapters import resources as r
from fhir_adapters.reading.shared import Reading
from fhir_adapters.reading.versions import current
from fhir_adapters.reading.wanted import AnswerRule
from fhir_adapters.record import Fact

COUNTS = frozenset({"completed", "amended"})


def read_answers(reading: Reading) -> None:
    """Every answer the package has a rule for, as a fact."""
    rules = {link: rule for rule in reading.wanted.answers for link in rule.link_ids}
    if not rules:
        return
    for response in current(reading.gathered, "QuestionnaireResponse"):
        if response.status not in COUNTS:
            continue
        at = reading.time(response.authored, "QuestionnaireResponse")
        if at is None:
            reading.no_time("QuestionnaireResponse", "QuestionnaireResponse without authored")
            continue
        for item in _all_items(response):
            rule = rules.get(item.link_id or "")
            worth = _worth(item, rule) if rule else None
            if rule and worth is not None:
                reading.add(
                    Fact(
                        rule.concept,
                        start=at,
                        end=at,
                        known=at,
                        value=worth,
                        source=f"QuestionnaireResponse/{response.id}",
                        code=item.link_id or "",
                    )
                )


def _all_items(response: r.QuestionnaireResponse) -> Iterator[r.QuestionnaireItem]:
    waiting = list(response.item or ())
    while waiting:
        item = waiting.pop()
        yield item
        waiting.extend(item.item or ())


def _worth(item: r.QuestionnaireItem, rule: AnswerRule) -> float | None:
    """What the first answer is worth; None where the table does not know it."""
    for answer in item.answer or ():
        coded = answer.value_coding.code if answer.value_coding else None
        said = answer.value_string or coded
        if said is not None:
            return rule.values.get(said)
        if answer.value_boolean is not None:
            return float(answer.value_boolean)
        quantity = answer.value_quantity.value if answer.value_quantity else None
        numbers = (answer.value_decimal, answer.value_integer, quantity)
        number = next((n for n in numbers if n is not None), None)
        if number is not None:
            return float(number)
    return None
