"""The whole validation and the files it writes."""

import base64
import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from validation.analysis import Validation, validate
from validation.disclosure import hide_small_statistics, is_small
from validation.errors import TooFewEvents
from validation.report import ModelFacts, write_report
from validation.statistics import Statistic

MODEL: ModelFacts = {"id": "example", "version": "1.0.0", "checksum": "ab12", "synthetic": True}


def predictions(n: int = 3000, *, seed: int = 1) -> pd.DataFrame:
    """Predictions of a good model, some patients twice, some dead, pending or censored."""
    random = np.random.default_rng(seed)
    risk = 1 / (1 + np.exp(-random.normal(-2, 0.8, n)))
    state = np.where(random.random(n) < risk, "event", "no-event").astype(object)
    state[(state == "no-event") & (random.random(n) < 0.03)] = "competing"
    state[random.random(n) < 0.02] = "pending"
    state[random.random(n) < 0.01] = "censored"
    return pd.DataFrame(
        {
            "patient": [f"p{number}" for number in random.integers(0, n, n)],
            "index_time": pd.date_range("2026-01-01", periods=n, freq="h", tz="UTC"),
            "risk": risk,
            "state": state,
        }
    )


@pytest.fixture(scope="module")
def validation() -> Validation:
    return validate(
        predictions(), thresholds=[0.2, 0.6], excluded={"too <b>young</b>": 3}, bootstrap=100
    )


@pytest.fixture(scope="module")
def written(validation: Validation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    write(validation, out)
    return out


def write(validation: Validation, out: Path) -> None:
    write_report(
        validation,
        out,
        title="Validation of <example>",
        model=MODEL,
        head={"id": "outcome", "threshold": 0.2},
        plan="All predictions of 2026.\n\n<script>alert(1)</script>",
        data={"cohort.parquet": "cd34"},
        synthetic_data=False,
        software_version="0.1.0",
        made_at=datetime(2026, 11, 21, tzinfo=UTC),
    )


def no_constant(name: str) -> float:
    raise AssertionError(f"{name} is not JSON")


def test_json_holds_every_statistic_with_its_interval(written: Path) -> None:
    """Each is {name, value, low, high, method, n, events}; none is NaN; all names differ."""
    text = (written / "report.json").read_text(encoding="utf-8")
    statistics = json.loads(text, parse_constant=no_constant)["statistics"]
    names = [one["name"] for one in statistics]
    assert len(set(names)) == len(names)
    assert {
        "auroc",
        "observed_expected",
        "calibration_in_the_large",
        "calibration_slope",
        "brier",
        "brier_scaled",
        "event_rate",
        "ppv_at_0.2",
        "death_as_event_auroc",
    } <= set(names)
    for one in statistics:
        assert list(one) == ["name", "value", "low", "high", "method", "n", "events"]
        if one["value"] is not None:
            assert one["low"] <= one["value"] <= one["high"]


def test_good_model_looks_good(validation: Validation) -> None:
    """Outcomes drawn from the risks: O/E and slope near 1, AUROC well above chance."""
    found = {one.name: one.value for one in validation.statistics}
    assert found["observed_expected"] == pytest.approx(1, abs=0.15)
    assert found["calibration_slope"] == pytest.approx(1, abs=0.2)
    assert found["auroc"] == pytest.approx(0.7, abs=0.05)


def test_page_asks_the_network_for_nothing(written: Path) -> None:
    """Figures are data in the page, there is no script, and the page's own policy forbids more."""
    page = (written / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r'\b(?:src|href)="([^"]+)"|url\(', page)
    assert len(sources) == 3
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert "<script" not in page
    assert "default-src 'none'" in page


def test_policy_admits_the_style_of_the_page(written: Path) -> None:
    """The hash in the policy is that of the style, or the browser would refuse it."""
    page = (written / "report.html").read_text(encoding="utf-8")
    style = page.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page
    assert " style=" not in page


def test_what_comes_from_outside_is_escaped(written: Path) -> None:
    """Title, plan and reasons are text, whatever they hold."""
    page = (written / "report.html").read_text(encoding="utf-8")
    assert "Validation of &lt;example&gt;" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "too &lt;b&gt;young&lt;/b&gt;" in page


def test_synthetic_model_has_its_banner(
    written: Path, validation: Validation, tmp_path: Path
) -> None:
    """The page of a synthetic model says so; that of another does not."""
    assert "made-up patients" in (written / "report.html").read_text(encoding="utf-8")
    write_report(
        validation,
        tmp_path,
        title="Real",
        model={**MODEL, "synthetic": False},
        head={"id": "outcome", "threshold": 0.2},
        plan="",
        data={},
        synthetic_data=False,
        software_version="0.1.0",
        made_at=datetime(2026, 11, 21, tzinfo=UTC),
    )
    assert "made-up patients" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_same_input_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    """A report can be made again and compared."""
    again = validate(
        predictions(), thresholds=[0.2, 0.6], excluded={"too <b>young</b>": 3}, bootstrap=100
    )
    write(again, tmp_path)
    names = sorted(p.relative_to(written) for p in written.rglob("*") if p.is_file())
    assert len(names) == 8
    assert all((written / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_no_small_count_leaves_the_report(written: Path) -> None:
    """No cell of patients and outcome from one to four is in the JSON or the tables."""
    document = json.loads((written / "report.json").read_text(encoding="utf-8"))
    cells = [
        *document["distribution"]["events"],
        *document["distribution"]["others"],
        *document["decision_curve"]["flagged"],
        *(group["events"] for group in document["calibration"]["groups"]),
        *(one["events"] for one in document["statistics"]),
    ]
    assert None in cells
    assert not [cell for cell in cells if cell is not None and is_small(cell)]
    table = pd.read_csv(written / "tables" / "distribution.csv", dtype=str)
    assert "<5" in set(table["events"])
    assert not {"1", "2", "3", "4"} & {*table["events"], *table["others"]}


def test_proportions_that_share_their_counts_are_hidden_together() -> None:
    """Three rightly flagged: were sensitivity hidden alone, the others would give it away."""
    four = [
        Statistic("flag_rate", 0.1, 0.05, 0.2, "Wilson", 100, 10),
        Statistic("sensitivity", 0.1, 0.02, 0.2, "Wilson", 30, 3),
    ]
    shown = hide_small_statistics(four)
    assert [(one.value, one.n, one.events) for one in shown] == [(None, None, None)] * 2
    assert shown[0].method == "not shown: rests on a count under 5"


def test_no_death_no_sensitivity_analysis(tmp_path: Path) -> None:
    """Where nobody died the section is left out."""
    frame = predictions(800)
    alive = frame[frame["state"] != "competing"]
    write(validate(alive, thresholds=[0.2], excluded={}, bootstrap=20), tmp_path)
    assert "Sensitivity analysis" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_useless_model_still_gets_its_report(tmp_path: Path) -> None:
    """One risk for everyone: no slope, no curve, an AUROC of one half, and a page."""
    frame = predictions(800).assign(risk=0.15)
    useless = validate(frame, thresholds=[0.1, 0.2], excluded={}, bootstrap=20)
    write(useless, tmp_path)
    found = {one.name: one.value for one in useless.statistics}
    assert found["auroc"] == 0.5
    assert found["calibration_slope"] is None
    assert "every risk is the same" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_too_few_events_make_no_report() -> None:
    """With nine events the command stops and says why."""
    frame = predictions(200).assign(state=["event"] * 9 + ["no-event"] * 191)
    with pytest.raises(TooFewEvents, match="at least 10 of each are needed"):
        validate(frame, thresholds=[0.2], excluded={}, bootstrap=20)
