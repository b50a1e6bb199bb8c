"""Chapter 2: counting, and when nothing found means that there was nothing.

Zero is not missing. "None" is an answer only if the query was made, was complete, and covers the
whole window; otherwise nobody knows, and the feature says `not-obtained`.
"""

import pytest

from tests.spec.drawn import Asked, asked, it, plain, value

STAYS = """
    Encounter | IMP | 2026-01-10 08:00 .. 2026-01-15 12:00 | EM
    Encounter | IMP | 2026-06-01 08:00 .. 2026-06-03 12:00 | EL
    Encounter | IMP | 2026-09-01 08:00 .. 2026-09-04 08:00 | EM
"""
YEAR = 'window = ["as_of - 365 d", "as_of"]\n'


@pytest.mark.parametrize(
    ("feature", "answer"),
    [
        ('recipe = "count"\nof = ["stay"]', 3.0),
        ('recipe = "count"\nof = ["stay"]\nwhere = ["acute"]', 2.0),
        ('recipe = "any"\nof = ["stay"]\nwhere = ["planned"]', 1.0),
        ('recipe = "days_total"\nof = ["stay"]', 5 + 4 / 24 + 2 + 4 / 24 + 3),
        ('recipe = "days_since"\nof = ["stay"]', 78 + 5 / 24),
        ('recipe = "days_since_first"\nof = ["stay"]', 315 + 4 / 24),
    ],
)
def test_admissions_of_a_year(feature: str, answer: float) -> None:
    """Three admissions, two of them acute; the last ended on 4 September at 8, summer time."""
    assert it(STAYS, f"{feature}\n{YEAR}") == pytest.approx(answer)


@pytest.mark.parametrize(
    ("feature", "answer"),
    [
        ('recipe = "count"\nof = ["stay"]', 0.0),
        ('recipe = "any"\nof = ["diabetes"]', 0.0),
        ('recipe = "days_total"\nof = ["stay"]', 0.0),
        ('recipe = "days_since"\nof = ["stay"]\nnever = 366', 366.0),
        ('recipe = "days_since_first"\nof = ["diabetes"]\nnever = 0', 0.0),
        ('recipe = "count_distinct"\nof = ["medication"]', 0.0),
        ('recipe = "count_concepts"\nof = ["opioid", "insulin"]', 0.0),
        ('recipe = "episodes"\nof = ["prednisolone"]\ngap_days = 14', 0.0),
    ],
)
def test_nothing_in_a_whole_record_is_none(feature: str, answer: float) -> None:
    """A record that is complete and holds none says: none. "Never" is a measured value."""
    assert it("", f"{feature}\n{YEAR}") == answer


def test_days_since_what_never_happened_needs_a_word_for_never() -> None:
    """Without `never` there is no number for what never happened."""
    assert it("", 'recipe = "days_since"\nof = ["stay"]') == "missing"


def test_the_same_drug_twice_is_one_drug() -> None:
    """Two prescriptions of morphine and one of insulin: three, two drugs, two kinds."""
    table = """
        MedicationRequest | morphine | 2026-11-01 | active
        MedicationRequest | morphine | 2026-11-10 | active
        MedicationRequest | insulin  | 2026-11-01 | active
    """
    of = 'of = ["opioid", "insulin"]'
    assert it(table, 'recipe = "count"\n' + of) == 3.0
    assert it(table, 'recipe = "count_distinct"\n' + of) == 2.0
    assert it(table, 'recipe = "count_concepts"\n' + of) == 2.0


def test_courses_close_together_are_one_episode() -> None:
    """Prednisolone on 1 and 8 March is one course, on 1 June another; so is a stay's aftermath."""
    table = """
        MedicationRequest | prednisolone | 2026-03-01 | completed
        MedicationRequest | prednisolone | 2026-03-08 | completed
        MedicationRequest | prednisolone | 2026-06-01 | completed
    """
    courses = f'recipe = "episodes"\nof = ["prednisolone"]\nwhen = "start"\ngap_days = 14\n{YEAR}'
    assert it(table, courses) == 2.0


def test_an_episode_lasts_as_long_as_what_it_is_made_of() -> None:
    """A new contact ten days after a month in hospital belongs to it, though it began later."""
    table = """
        Encounter | IMP  | 2026-03-01 08:00 .. 2026-03-31 08:00 | EM
        Encounter | IMP  | 2026-04-10 08:00 .. 2026-04-12 08:00 | EM
        Encounter | IMP  | 2026-06-01 08:00 .. 2026-06-02 08:00 | EM
    """
    assert it(table, f'recipe = "episodes"\nof = ["stay"]\ngap_days = 14\n{YEAR}') == 2.0


# ---- was it asked? ------------------------------------------------------------------------------

PAGE_OF_THREE = "Observation?patient=p&category=laboratory&_sort=-date&_count=3"
ANY_CRP = 'recipe = "any"\nof = ["crp"]\nwindow = ["as_of - 7 d", "as_of"]'
COUNT_CRP = 'recipe = "count"\nof = ["crp"]\nwindow = ["as_of - 7 d", "as_of"]'
TWO = """
    Observation | CRP | 2026-11-20 08:00 | 12 mg/L
    Observation | CRP | 2026-11-19 08:00 | 30 mg/L
"""


def crp(answer: object, *, total: int | None = None, template: str = PAGE_OF_THREE) -> Asked:
    """The query for laboratory results, answered so."""
    assert answer is None or isinstance(answer, (str, dict))
    return Asked(template, ("crp",), answer, total)


def test_an_answer_with_fewer_than_a_page_is_complete() -> None:
    """Two results on a page of three: there are two."""
    assert plain(asked({"labs": crp(TWO)}, COUNT_CRP)) == 2.0


def test_null_means_asked_and_nothing_there() -> None:
    """A prefetch value of null says none."""
    assert plain(asked({"labs": crp(None)}, COUNT_CRP)) == 0.0


def test_what_was_not_asked_is_not_known() -> None:
    """A prefetch without the key says nothing about how many there were."""
    found = asked({"labs": crp({})}, COUNT_CRP)
    assert (found.status, found.reason) == ("not-obtained", "labs: not asked")


def test_a_query_that_failed_is_not_none() -> None:
    """An OperationOutcome in the place of results: nobody knows."""
    failed = {"resourceType": "OperationOutcome", "issue": [{"severity": "error"}]}
    found = asked({"labs": crp(failed)}, COUNT_CRP)
    assert (found.status, found.reason) == ("not-obtained", "labs: the sender's query failed")


THREE = """
    Observation | CRP | 2026-11-20 08:00 | 12 mg/L
    Observation | CRP | 2026-11-17 08:00 | 30 mg/L
    Observation | CRP | 2026-11-10 08:00 | 80 mg/L
"""


def test_a_full_page_newest_first_covers_back_to_its_oldest_entry() -> None:
    """Three of a page of three, the oldest of 10 November: a week is covered, a month is not."""
    week = asked({"labs": crp(THREE)}, COUNT_CRP)
    month = asked({"labs": crp(THREE)}, COUNT_CRP.replace("7 d", "30 d"))
    assert plain(week) == 2.0
    assert (month.status, month.reason) == ("not-obtained", "labs: one page of more")


def test_none_on_a_full_page_counts_only_where_the_page_reaches() -> None:
    """No haemoglobin among the newest three results: none this week, unknown for the month."""
    labs = Asked(PAGE_OF_THREE, ("haemoglobin",), THREE)
    none = 'recipe = "count"\nof = ["haemoglobin"]\nwindow = ["as_of - 7 d", "as_of"]'
    assert plain(asked({"labs": labs}, none)) == 0.0
    assert plain(asked({"labs": labs}, none.replace("7 d", "30 d"))) == "not-obtained"


def test_a_page_that_did_not_come_newest_first_covers_nothing() -> None:
    """The sender ignored the order asked for, so what is left out may be of any age."""
    muddled = "\n".join(reversed(THREE.strip().splitlines()))
    assert plain(asked({"labs": crp(muddled)}, COUNT_CRP)) == "not-obtained"


def test_a_full_page_in_no_order_covers_nothing() -> None:
    """A template without `_sort` cannot promise what a full page leaves out."""
    unsorted = "Observation?patient=p&category=laboratory&_count=3"
    assert plain(asked({"labs": crp(THREE, template=unsorted)}, COUNT_CRP)) == "not-obtained"


def test_a_total_above_what_came_means_there_are_more() -> None:
    """Two of five: the answer is a part, and reaches back to its oldest."""
    assert plain(asked({"labs": crp(TWO, total=5)}, COUNT_CRP)) == "not-obtained"


def test_one_is_enough_for_any_however_little_was_obtained() -> None:
    """A CRP on a page that covers nothing is still a CRP."""
    muddled = "\n".join(reversed(THREE.strip().splitlines()))
    assert plain(asked({"labs": crp(muddled)}, ANY_CRP)) == 1.0


def test_a_disease_may_be_older_than_the_page_reaches() -> None:
    """No diabetes on a full page of diagnoses proves nothing: it may have been recorded before."""
    conditions = Asked(
        "Condition?patient=p&_sort=-recorded-date&_count=2",
        ("diabetes",),
        """
        Condition | COPD          | 2026-11-01 | active | recorded 2026-11-01
        Condition | heart failure | 2020-11-01 | active | recorded 2020-11-01
        """,
    )
    feature = 'recipe = "any"\nof = ["diabetes"]\nwindow = ["as_of - 1 y", "as_of"]'
    assert plain(asked({"conditions": conditions}, feature)) == "not-obtained"


def test_what_is_made_of_several_queries_needs_them_all() -> None:
    """Stays were obtained, diagnoses were not: the count of both is not known."""
    queries = {
        "stays": Asked("Encounter?patient=p", ("stay",), STAYS),
        "conditions": Asked("Condition?patient=p", ("copd_exacerbation",), {}),
    }
    both = f'recipe = "count"\nof = ["stay", "copd_exacerbation"]\n{YEAR}'
    assert plain(asked(queries, both)) == "not-obtained"


def test_a_broken_resource_leaves_room_for_doubt() -> None:
    """One entry that could not be read: there may have been one more."""
    broken = {
        "resourceType": "Bundle",
        "type": "searchset",
        "entry": [{"resource": {"resourceType": "Observation", "status": 7}}],
    }
    found = asked({"labs": crp(broken)}, COUNT_CRP)
    assert (found.status, found.reason) == ("not-obtained", "labs: an entry could not be read")


def test_measurements_that_were_not_obtained_are_not_called_missing() -> None:
    """`missing` means: asked for, and not there."""
    last = 'recipe = "last"\nof = ["crp"]\nwindow = ["as_of - 7 d", "as_of"]'
    assert plain(asked({"labs": crp(None)}, last)) == "missing"
    assert plain(asked({"labs": crp({})}, last)) == "not-obtained"


def test_a_count_tells_what_it_counted() -> None:
    """The resources counted, newest last, and how many."""
    found = value(STAYS, f'recipe = "count"\nof = ["stay"]\nwhere = ["acute"]\n{YEAR}')
    assert found.sources == ("Encounter/encounter-1", "Encounter/encounter-3")
    assert found.findings == 2


def test_an_answer_no_is_none() -> None:
    """Asked whether she lives alone: no. That is known, and it is not one."""
    alone = 'recipe = "any"\nof = ["living_alone"]'
    no = "Observation | 105529008 | 2026-11-20 08:00 | false"
    assert it(no, alone) == 0.0
    assert it(no.replace("false", "true"), alone) == 1.0
    found = value(no, alone)
    assert (found.value, found.status, found.findings) == (0.0, "measured", 1)
