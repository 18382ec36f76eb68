"""Exports that people download from their wearables, as parts of wearable days."""

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows.lake.report import IngestionReport
from flows.lake.tables import scan_table
from tests.fixtures.quiet_ingestion import KEY, ingest_quietly

CHANNELS = ["steps", "active_minutes", "sleep_minutes", "sleep_efficiency"]
CHANNELS += ["resting_heart_rate", "hrv_rmssd", "wear_minutes"]


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    return tmp_path / "drop"


def put(drop: Path, name: str, content: Any) -> None:
    """Write a file of the export of person p1; what is no text is written as JSON."""
    path = drop / "wearable_exports" / "p1" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def land(drop: Path, *people: str) -> tuple[dict[str, dict[str, Any]], IngestionReport]:
    """Return the days that land, by date, with the channels that are known."""
    lake = str(drop.parent / "lake")
    report = ingest_quietly(drop, lake, people or ("p1",))
    days = scan_table(lake, "wearable_days").sort("date").collect()
    known = {
        str(day["date"]): {name: day[name] for name in CHANNELS if day[name] is not None}
        for day in days.to_dicts()
    }
    return known, report


def record(kind: str, start: str, end: str, value: str, source: str = "Anna's iPhone") -> str:
    return (
        f'<Record type="{kind}" sourceName="{source}" unit="x" startDate="{start} +0100" '
        f'endDate="{end} +0100" value="{value}"/>'
    )


STEPS = "HKQuantityTypeIdentifierStepCount"
SLEEP, ASLEEP = "HKCategoryTypeIdentifierSleepAnalysis", "HKCategoryValueSleepAnalysisAsleepCore"
IN_BED = "HKCategoryValueSleepAnalysisInBed"
APPLE = [
    record(STEPS, "2025-03-03 09:00:00", "2025-03-03 10:00:00", "3000"),
    record(STEPS, "2025-03-03 09:00:10", "2025-03-03 10:00:05", "3100", "Anna's Apple Watch"),
    record(STEPS, "2025-03-03 23:30:00", "2025-03-04 00:00:00", "100"),
    record(SLEEP, "2025-03-02 22:30:00", "2025-03-02 23:30:00", ASLEEP),
    record(SLEEP, "2025-03-02 23:30:00", "2025-03-03 06:30:00", ASLEEP),
    record(
        SLEEP, "2025-03-02 22:00:00", "2025-03-03 07:00:00", "HKCategoryValueSleepAnalysisInBed"
    ),
    record(
        "HKQuantityTypeIdentifierRestingHeartRate",
        "2025-03-03 00:00:00",
        "2025-03-03 20:00:00",
        "58",
    ),
    record(
        "HKQuantityTypeIdentifierHeartRateVariabilitySDNN",
        "2025-03-03 03:00:00",
        "2025-03-03 03:01:00",
        "60",
    ),
]


def test_apple_health_counts_a_walk_once_and_a_night_on_the_day_of_waking(drop: Path) -> None:
    put(drop, "export.xml", f"<HealthData>{''.join(APPLE)}</HealthData>")
    days, report = land(drop)
    assert days == {"2025-03-03": {"steps": 3200, "sleep_minutes": 480, "resting_heart_rate": 58}}
    assert report.records == 8
    assert report.ignored == {
        "Apple Health HKCategoryTypeIdentifierSleepAnalysis": 1,
        "Apple Health HeartRateVariabilitySDNN": 1,
    }


def test_apple_health_may_come_as_the_zip_that_the_phone_makes(drop: Path) -> None:
    folder = drop / "wearable_exports" / "p1"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "export.zip", "w") as archive:
        archive.writestr("apple_health_export/export.xml", f"<HealthData>{APPLE[0]}</HealthData>")
    assert land(drop)[0] == {"2025-03-03": {"steps": 3000}}


def test_a_cut_off_export_is_named_and_the_others_land(drop: Path) -> None:
    put(drop, "export.xml", "<HealthData><Record ")
    put(drop, "UDSFile_1.json", [{"calendarDate": "2025-03-03", "totalSteps": 500}])
    days, report = land(drop)
    assert days == {"2025-03-03": {"steps": 500}}
    assert [error.split(": ")[1] for error in report.errors] == ["is not a whole export"]


DOUBLED = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    ("entities", "value"),
    [
        (f'<!ENTITY e0 "0000000000">{DOUBLED}', "&e9;"),
        ('<!ENTITY e0 SYSTEM "file:///etc/hostname">', "&e0;"),
    ],
    ids=["growing", "a file"],
)
def test_an_export_whose_entities_grow_or_name_a_file_is_refused(
    drop: Path, entities: str, value: str
) -> None:
    named = APPLE[0].replace('value="3000"', f'value="{value}"')
    put(drop, "export.xml", f"<!DOCTYPE d [{entities}]><HealthData>{named}</HealthData>")
    put(drop, "UDSFile_1.json", [{"calendarDate": "2025-03-03", "totalSteps": 500}])
    days, report = land(drop)
    assert days == {"2025-03-03": {"steps": 500}}
    assert [error.split(": ")[1] for error in report.errors] == ["is not a whole export"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "UDSFile_2025.json",
            [
                {
                    "calendarDate": "2025-03-03",
                    "totalSteps": 8000,
                    "moderateIntensityMinutes": 20,
                    "vigorousIntensityMinutes": 10,
                    "restingHeartRate": 0,
                }
            ],
            {"steps": 8000, "active_minutes": 30},
        ),
        (
            "2025_sleepData.json",
            [
                {
                    "calendarDate": "2025-03-03",
                    "deepSleepSeconds": 3600,
                    "lightSleepSeconds": 14400,
                    "remSleepSeconds": 7200,
                }
            ],
            {"sleep_minutes": 420},
        ),
        (
            "daily_activity.json",
            {
                "data": [
                    {
                        "day": "2025-03-03",
                        "steps": 7000,
                        "medium_activity_time": 1200,
                        "high_activity_time": 600,
                        "non_wear_time": 3600,
                    }
                ]
            },
            {"steps": 7000, "active_minutes": 30, "wear_minutes": 1380},
        ),
        (
            "sleep.json",
            {
                "data": [
                    {
                        "day": "2025-03-03",
                        "type": "long_sleep",
                        "total_sleep_duration": 25200,
                        "efficiency": 91,
                        "average_hrv": 44,
                        "lowest_heart_rate": 47,
                    },
                    {"day": "2025-03-03", "type": "rest", "total_sleep_duration": 600},
                ]
            },
            {"sleep_minutes": 420, "sleep_efficiency": 91, "hrv_rmssd": 44},
        ),
        (
            "summaries_sleep.json",
            {
                "data": [
                    {
                        "date": "2025-03-03",
                        "source": {"provider": "whoop"},
                        "duration_seconds": 25200,
                        "efficiency_percent": 88.0,
                        "avg_hrv_rmssd_ms": 51.0,
                    }
                ],
                "pagination": {},
            },
            {"sleep_minutes": 420, "sleep_efficiency": 88, "hrv_rmssd": 51},
        ),
    ],
    ids=["garmin day", "garmin night", "oura day", "oura night", "open-wearables"],
)
def test_a_summary_gives_the_channels_that_it_states_and_no_other(
    drop: Path, name: str, content: Any, expected: dict[str, float]
) -> None:
    put(drop, name, content)
    assert land(drop)[0] == {"2025-03-03": expected}


def test_fitbit_minutes_are_a_day_and_a_nap_adds_to_a_night(drop: Path) -> None:
    put(
        drop,
        "Takeout/Fitbit/steps-2025-03-03.json",
        [{"dateTime": f"03/03/25 10:0{n}:00", "value": "50"} for n in range(4)],
    )
    for kind, minutes in (("very", "7"), ("moderately", "5")):
        values = [{"dateTime": "03/03/25 00:00:00", "value": minutes}]
        put(drop, f"{kind}_active_minutes-2025-03-03.json", values)
    sleeps = [
        ("2025-03-02T23:00:00.000", "2025-03-03T06:30:00.000", 420),
        ("2025-03-03T14:00:00.000", "2025-03-03T14:30:00.000", 25),
    ]
    put(
        drop,
        "sleep-2025-03-03.json",
        [
            {"dateOfSleep": "2025-03-03", "startTime": a, "endTime": b, "minutesAsleep": m}
            for a, b, m in sleeps
        ],
    )
    put(
        drop,
        "resting_heart_rate-2025-01-01.json",
        [{"dateTime": "03/03/25 00:00:00", "value": {"date": "03/03/25", "value": 61.5}}],
    )
    days, _ = land(drop)
    assert days["2025-03-03"] == {
        "steps": 200,
        "active_minutes": 12,
        "sleep_minutes": 445,
        "resting_heart_rate": 61.5,
    }


def test_a_radar_topic_names_its_people_in_its_rows(drop: Path) -> None:
    header = "key.projectId,key.userId,value.date,value.steps,value.moderateIntensityDuration"
    rows = ["mdd,p1,2025-03-03,6000,1800", "mdd,p2,2025-03-03,4000,0"]
    path = drop / "wearable_exports" / "radar" / "push_garmin_daily_summary" / "1.csv.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress("\n".join([header, *rows]).encode()))
    land(drop, "p1", "p2")
    days = scan_table(str(drop.parent / "lake"), "wearable_days").collect()
    steps = dict(days.select("anonymized_id", "steps").iter_rows())
    assert steps == {KEY.pseudonymise("p1"): 6000, KEY.pseudonymise("p2"): 4000}


def test_a_later_export_replaces_a_day_that_was_not_over(drop: Path) -> None:
    for steps in (1200, 9000):
        put(drop, "UDSFile_1.json", [{"calendarDate": "2025-03-03", "totalSteps": steps}])
        days, _ = land(drop)
    assert days == {"2025-03-03": {"steps": 9000}}


def test_an_export_names_neither_person_nor_device_in_the_lake(drop: Path) -> None:
    put(drop, "export.xml", f"<HealthData>{''.join(APPLE)}</HealthData>")
    land(drop)
    lake = drop.parent / "lake"
    kept = pl.read_delta(str(lake / "parts" / "wearable_days")).write_csv()
    assert "Anna" not in kept
    assert "p1" not in kept
