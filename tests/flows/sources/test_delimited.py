import gzip
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.sources import delimited
from flows.sources.batch import Batch, UnreadableFileError
from flows.sources.delimited import list_unknown_columns, read_delimited
from flows.sources.drop import EmptyDropError, classify_name, find_files
from flows.sources.headers import read_header
from flows.sources.pseudonymise import PersonKey

KEY = PersonKey("a salt for tests, 256 bit or more of it")
HEADER = "person_id,date,steps"
ENDS_EARLY = gzip.compress(b"person_id,date\n" * 99, mtime=0)[:-9]


def read_file(folder: Path) -> list[Batch]:
    (file,) = find_files(str(folder)).files
    return list(read_delimited(file, KEY))


def refuse(folder: Path) -> str:
    with pytest.raises(UnreadableFileError) as caught:
        read_file(folder)
    return str(caught.value)


def numbers(batches: list[Batch]) -> list[int]:
    return [n for batch in batches for rows in batch.rows.values() for n in rows["row_number"]]


def rejected(batches: list[Batch]) -> list[tuple[int, str]]:
    return [(one.row_number, one.reason) for batch in batches for one in batch.rejected]


def test_a_drop_without_a_file_of_the_contract_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("a,b\n")
    with pytest.raises(EmptyDropError, match=r"no file of the input contract \(1 others\)"):
        find_files(str(tmp_path))
    with pytest.raises(EmptyDropError, match="not a folder"):
        find_files(str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("wearable_days.csv", b"", "wearable_days.csv: is empty"),
        ("wearable_days.csv", b"person_id,steps\n1,2\n", "required column date is missing"),
        ("wearable_days.csv", b"date,steps\n2025-01-01,2\n", "column person_id is missing"),
        ("wearable_days.csv", b"person_id,date,date\n", "named twice in the header: date"),
        (
            "wearable_days.csv",
            b"person_id,date,steps\n1,2025-01-01,2\n1,2025-01-0\xff,2\n",
            "wearable_days.csv: row 3, column date, is not UTF-8",
        ),
        ("wearable_days.csv", "person_id,date\n1,2025-01-01\n".encode("utf-16"), "is not UTF-8"),
        ("wearable_days.csv", b"person_id,date\n1,2025\xe2\x82", "row 2 is not UTF-8"),
        (
            "wearable_days.csv.gz",
            ENDS_EARLY,
            "ends early",
        ),
        ("wearable_days.csv.gz", b"person_id,date\n", "compressed stream is damaged"),
        ("wearable_days.csv", b'person_id,date\n1,"2025\n2,3\n', "a quote is opened"),
        ("wearable_days.csv", b'person_id,date\n1,"2\n2,3\n3,4"\n', "holds a line break"),
        ("wearable_days.parquet", b"PAR1 or not", "is not a readable Parquet file"),
        ("wearable_days.parquet", b"", "is not a readable Parquet file"),
    ],
)
def test_an_unreadable_file_is_refused_by_name_and_place(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    text = refuse(tmp_path)
    assert text.startswith(name)
    assert message in text


def test_rows_with_too_few_or_many_fields_are_rejected_and_the_others_keep_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "BATCH_BYTES", 200)
    lines = [f"p{number},2025-01-01,{number}" for number in range(2, 102)]
    lines[3] = "p5,2025-01-01"
    lines[60] = "p62,2025-01-01,62,7"
    lines[99] = "p101"
    (tmp_path / "wearable_days.csv").write_text("\n".join([HEADER, *lines]))
    batches = read_file(tmp_path)
    assert len(batches) > 3
    assert rejected(batches) == [
        (5, "has 2 fields, the header 3"),
        (62, "has 4 fields, the header 3"),
        (101, "has 1 fields, the header 3"),
    ]
    assert numbers(batches) == [n for n in range(2, 102) if n not in (5, 62, 101)]
    steps = [s for batch in batches for rows in batch.rows.values() for s in rows["steps"]]
    assert steps == [str(number) for number in numbers(batches)]
    assert sum(batch.records for batch in batches) == 100


def test_a_file_with_a_header_only_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "wearable_days.csv").write_text(HEADER + "\n")
    assert sum(batch.records for batch in read_file(tmp_path)) == 0


def test_the_person_id_is_gone_with_the_first_batch(tmp_path: Path) -> None:
    (tmp_path / "wearable_days.csv").write_text(f"\ufeff{HEADER}\r\n person-7 ,2025-01-01,1\r\n")
    (batch, _) = read_file(tmp_path)
    rows = batch.rows["wearable_days"]
    assert "person_id" not in rows.columns
    assert "person-7" not in str(rows.to_dicts())
    assert rows["anonymized_id"][0] == KEY.pseudonymise("person-7")


def test_parquet_keeps_its_types_and_counts_from_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "BATCH_ROWS", 2)
    frame = pl.DataFrame(
        {"person_id": [7, 8, 9], "date": [date(2025, 1, 1)] * 3, "mood": ["x"] * 3}
    )
    frame.write_parquet(tmp_path / "wearable_days.parquet")
    batches = read_file(tmp_path)
    assert numbers(batches) == [1, 2, 3]
    assert batches[0].rows["wearable_days"]["date"].dtype == pl.Date
    assert list_unknown_columns(find_files(str(tmp_path)).files[0]) == ["column 3"]


def test_an_unknown_column_is_named_only_where_it_can_be_no_persons_name(tmp_path: Path) -> None:
    header = "person_id,date,Jane Doe,jane_doe,step,sleep_date,wear_minuts,1907-03-14,j@w.example"
    (tmp_path / "wearable_days.csv").write_text(f"{header}\n1,2025-01-01,1,2,3,4,5,6,7\n")
    assert list_unknown_columns(find_files(str(tmp_path)).files[0]) == [
        "column 3",
        "column 4",
        "step",
        "sleep_date",
        "wear_minuts",
        "column 8",
        "column 9",
    ]


def test_a_name_that_is_there_twice_is_refused_without_being_repeated(tmp_path: Path) -> None:
    (tmp_path / "wearable_days.csv").write_text(
        "person_id,date,jane doe,Jane Doe\n1,2025-01-01,1,2\n"
    )
    with pytest.raises(UnreadableFileError) as refused:
        list_unknown_columns(find_files(str(tmp_path)).files[0])
    assert "named twice in the header: column 3" in str(refused.value)
    assert "jane" not in str(refused.value)


def test_a_table_may_come_in_parts_and_in_a_folder(tmp_path: Path) -> None:
    for path in ("surveys-0001.parquet", "surveys/part-0.csv", "wearable_days.csv.gz"):
        assert classify_name(path) is not None
    for path in ("surveys_old.csv", "notes/x.csv", "people.xlsx", "README.md"):
        assert classify_name(path) is None


def test_a_name_that_may_be_a_persons_becomes_a_digest(tmp_path: Path) -> None:
    for name in ("Jane_Doe_7.json", "Patient.000.ndjson", "Jane.ndjson", "surveys.csv"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "surveys").mkdir()
    (tmp_path / "surveys" / "Jane.csv").write_text("")
    labels = {file.label for file in find_files(str(tmp_path)).files}
    assert {"surveys.csv", "Patient.000.ndjson"} < labels
    assert not any("Jane" in label for label in labels)


cells = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r\n"), max_size=8)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(cells, min_size=1, max_size=5), min_size=1, max_size=30))
def test_whatever_a_csv_holds_no_row_is_lost(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("drop")
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    (folder / "wearable_days.csv").write_bytes("\n".join([HEADER, *quoted]).encode())
    batches = read_file(folder)
    assert sum(batch.records for batch in batches) == len(rows)
    # Where every row has the same empty fields beyond the header, they belong to nameless columns.
    width = len(read_header(find_files(str(folder)).files[0]).names)
    kept = dict(zip(numbers(batches), [row for row in rows if len(row) == width], strict=True))
    assert sorted([*kept, *(number for number, _ in rejected(batches))]) == list(
        range(2, len(rows) + 2)
    )
