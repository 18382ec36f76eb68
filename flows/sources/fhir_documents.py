"""The resources in a FHIR file: NDJSON lines, Bundles and single documents, and what is wrong.

A line or document that cannot be read is a record with its problem; the next one is read. UTF-16
is read as well as UTF-8: some shells write nothing else.
"""

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import orjson

from feature_repo.fhir_values import REFERENCE, Context, Resource, as_list, as_object
from flows.sources.batch import UnreadableFileError
from flows.sources.drop import SourceFile, open_members

#: Any of these in a line or document, or all of it where there is none.
Needles = tuple[bytes, ...]

#: Read of a file at once.
BLOCK_BYTES = 1 << 18

#: How a file begins that is UTF-16, with a byte order mark or without one.
UTF16_STARTS = {
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    b"{\x00": "utf-16-le",
    b"\x00{": "utf-16-be",
    b"[\x00": "utf-16-le",
}


class Record(NamedTuple):
    """One resource of a file, or what could not be parsed as one.

    `deleted` is the name `Type/id` of a resource that an entry deletes, `at` when it did.
    """

    number: int
    resource: Resource
    context: Context
    problem: str | None = None
    deleted: str | None = None
    at: str | None = None
    notes: tuple[str, ...] = ()


def iterate_records(file: SourceFile, context: Context, needles: Needles = ()) -> Iterator[Record]:
    """Yield the records of a file; of those without a needle in their text none."""
    first = 1
    with open_members(file) as members:
        for format_, stream in members:
            reader = _read_lines if format_ == "ndjson" else _read_document
            last = first - 1
            for record in reader(file, stream, context, needles, first):
                last = record.number
                yield record
            first = last + 1


def iterate_texts(file: SourceFile) -> Iterator[bytes]:
    """Yield the text of a file in UTF-8: whole documents, or about BLOCK_BYTES of whole lines."""
    with open_members(file) as members:
        for format_, stream in members:
            while text := stream.read(BLOCK_BYTES) + stream.readline():
                encoding = UTF16_STARTS.get(text[:2])
                if encoding or format_ != "ndjson":
                    text += stream.read()
                yield _transcode(file, text, encoding) if encoding else text


def _holds(needles: Needles, text: bytes) -> bool:
    return not needles or any(needle in text for needle in needles)


def _read_lines(
    file: SourceFile, stream: IO[bytes], context: Context, needles: Needles, first: int
) -> Iterator[Record]:
    for lines in _decode_lines(file, stream):
        # One look at many lines passes over most of a file that holds no needle.
        if not needles or _holds(needles, b"".join(lines)):
            for number, line in enumerate(lines, first):
                if line.strip() and _holds(needles, line):
                    yield from _parse_line(file, number, line, context)
        first += len(lines)


def _decode_lines(file: SourceFile, stream: IO[bytes]) -> Iterator[list[bytes]]:
    """Yield lines in UTF-8, about BLOCK_BYTES of them at once, for any encoding of the file."""
    begin = stream.readline()
    encoding = UTF16_STARTS.get(begin[:2])
    if encoding:
        yield _transcode(file, begin + stream.read(), encoding).splitlines(keepends=True)
        return
    yield [begin.removeprefix(codecs.BOM_UTF8)]
    while lines := stream.readlines(BLOCK_BYTES):
        yield lines


def _transcode(file: SourceFile, content: bytes, encoding: str) -> bytes:
    try:
        return content.decode(encoding).encode()
    except UnicodeError:
        raise UnreadableFileError(f"{file.label}: is neither UTF-8 nor whole UTF-16") from None


def _parse_line(file: SourceFile, number: int, line: bytes, context: Context) -> Iterator[Record]:
    problem, resource = _parse_json(line, "line")
    if problem:
        yield Record(number, {}, context, problem)
    elif as_object(resource).get("resourceType") == "Bundle":
        for record in _open_bundle(file, resource, context, number):
            yield record._replace(number=number)
    else:
        yield _check_resource(number, resource, context)


def _parse_json(text: bytes, what: str) -> tuple[str | None, Any]:
    """Return (problem, None) or (None, what the JSON holds)."""
    try:
        return None, orjson.loads(text)
    except orjson.JSONDecodeError:
        return _parse_unusual_json(text, what)


def _parse_unusual_json(text: bytes, what: str) -> tuple[str | None, Any]:
    """Parse what the fast parser refuses: NaN, numbers without limit; or say what is wrong."""
    try:
        content = json.loads(text)
        if b"\\ud" in text or b"\\uD" in text:
            json.dumps(content, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        return f"{what}: is not UTF-8", None
    except UnicodeEncodeError:
        return f"{what}: holds half of a character (a lone surrogate)", None
    except RecursionError:
        return f"{what}: is nested too deeply", None
    except ValueError:
        return f"{what}: is not a complete JSON object", None
    return None, content


def _check_resource(number: int, resource: Any, context: Context) -> Record:
    if not isinstance(as_object(resource).get("resourceType"), str):
        return Record(number, {}, context, "resourceType: is missing, so it is no FHIR resource")
    return Record(number, resource, context)


def _read_document(
    file: SourceFile, stream: IO[bytes], context: Context, needles: Needles, first: int
) -> Iterator[Record]:
    content = stream.read()
    encoding = UTF16_STARTS.get(content[:2])
    if encoding:
        content = _transcode(file, content, encoding)
    content = content.removeprefix(codecs.BOM_UTF8)
    if not _holds(needles, content):
        return
    problem, document = _parse_json(content, "document")
    if problem and "nested" not in problem and "half" not in problem:
        raise UnreadableFileError(f"{file.label}: is not complete JSON in UTF-8")
    if problem:
        raise UnreadableFileError(f"{file.label}: {problem.removeprefix('document: ')}")
    if as_object(document).get("resourceType") == "Bundle":
        yield from _open_bundle(file, document, context, first)
    elif isinstance(document, list):
        for number, resource in enumerate(document, first):
            yield _check_resource(number, resource, context)
    else:
        yield _check_resource(first, document, context)


def _open_bundle(
    file: SourceFile, bundle: Resource, context: Context, first: int
) -> Iterator[Record]:
    """Yield the entries of a Bundle, its inner Bundles opened too."""
    entries = [as_object(entry) for entry in as_list(bundle.get("entry"))]
    for entry in entries:
        _name_by_full_url(entry)
    within = context.within(context.full_urls | _map_full_urls(entries))
    own = find_page(bundle, "self")
    if own:
        context.pages.add(own)
    at = bundle.get("timestamp") or as_object(bundle.get("meta")).get("lastUpdated")
    notes = _note_missing_page(file, bundle, len(entries), context)
    if not entries:
        yield Record(first, {"resourceType": "Bundle"}, context, notes=notes)
    for number, entry in enumerate(entries, first):
        deleted = _find_deleted(entry)
        inner = as_object(entry.get("resource"))
        if deleted:
            yield Record(number, {}, within, None, deleted, at if isinstance(at, str) else None)
        elif inner.get("resourceType") == "Bundle":
            yield from _open_bundle(file, inner, within, number)
        else:
            record = _check_resource(number, entry.get("resource"), within)
            yield Record(number, record.resource, within, record.problem, notes=notes)
        notes = ()


def _name_by_full_url(entry: Resource) -> None:
    """Give a resource without an id, as in a transaction of POSTs, the id of its fullUrl."""
    resource, url = as_object(entry.get("resource")), entry.get("fullUrl")
    if resource.get("id") or not isinstance(url, str) or not resource.get("resourceType"):
        return
    match = REFERENCE.search(url)
    identifier = match["id"] if match else url.removeprefix("urn:uuid:")
    if identifier and not identifier.startswith(("urn:", "http")):
        resource["id"] = identifier


def _map_full_urls(entries: list[Resource]) -> dict[str, str]:
    named = [(entry.get("fullUrl"), as_object(entry.get("resource"))) for entry in entries]
    return {
        url: f"{resource['resourceType']}/{resource['id']}"
        for url, resource in named
        if isinstance(url, str) and resource.get("resourceType") and resource.get("id")
    }


def _find_deleted(entry: Resource) -> str | None:
    """Return the name of the resource that an entry deletes."""
    request = as_object(entry.get("request"))
    if str(request.get("method", "")).upper() != "DELETE":
        return None
    for url in (request.get("url"), entry.get("fullUrl")):
        match = REFERENCE.search(str(url or ""))
        if match:
            return f"{match['kind']}/{match['id']}"
    return "unknown/unknown"


def _note_missing_page(
    file: SourceFile, bundle: Resource, here: int, context: Context
) -> tuple[str, ...]:
    following = find_page(bundle, "next")
    if following is None or following in context.pages:
        return ()
    total = bundle.get("total")
    of = f" of {total}" if isinstance(total, int) else ""
    return (f"{file.label}: holds {here}{of} entries; the next page is not in the drop",)


def find_page(bundle: Resource, relation: str) -> str | None:
    """Return the address of a Bundle's `self` or `next` page."""
    for link in map(as_object, as_list(bundle.get("link"))):
        if link.get("relation") == relation and isinstance(link.get("url"), str):
            return str(link["url"])
    return None
