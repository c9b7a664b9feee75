"""Parsing of request bodies: media types, encodings, and the exact position of every syntax error.

The rules are in docs/contract/create-message.md, sections 3 and 4.
"""

import json
from typing import Any

import pytest

from messages_app.models import Message
from tests.conftest import Api, detail_of
from threadsvc.api.json import as_before_3_13

GOOD = b'{"role":"user","content":"hello"}'
UNREADABLE = (400, {"detail": "There was an error parsing the body"})
VALUE = "Expecting value"
KEY = "Expecting property name enclosed in double quotes"
COMMA = "Expecting ',' delimiter"
COLON = "Expecting ':' delimiter"
RANGE = "Out of range float values are not JSON compliant"


def post(api: Api, thread_id: str, body: bytes, content_type: str | None = "application/json") -> tuple[int, Any]:
    answer = api.post(f"/threads/{thread_id}/messages", body, content_type)
    return answer.status, answer.body


def json_invalid(position: int, reason: str) -> tuple[int, Any]:
    item = {"type": "json_invalid", "loc": ["body", position], "msg": "JSON decode error", "input": {}}
    return 422, {"detail": [{**item, "ctx": {"error": reason}}]}


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        *[(word, 0, VALUE) for word in ["tru", "None", "True", "undefined", "nan", "inf", "-Infinit", ".5", "+1", "-"]],
        *[(word, 0, VALUE) for word in ["// x\n1", "#", "'a'", "]", "}", ","]],
        ("   ", 3, VALUE),
        ("\n\t\r ", 4, VALUE),
        ("\u00a01", 0, VALUE),
        ("\v1", 0, VALUE),
        ("\f1", 0, VALUE),
        ("[1,]", 3, VALUE),
        ("[1, ]", 4, VALUE),
        ("[,1]", 1, VALUE),
        ('{"a":}', 5, VALUE),
        ('{"a":/**/1}', 5, VALUE),
        ("{", 1, KEY),
        ("{'a':1}", 1, KEY),
        ("{a:1}", 1, KEY),
        ("{1:1}", 1, KEY),
        ("{,}", 1, KEY),
        ("{/**/}", 1, KEY),
        ('{"a":1,}', 7, KEY),
        ('{"a":1, }', 8, KEY),
        ('{"a":1,,"b":2}', 7, KEY),
        ('{"a" 1}', 5, COLON),
        ('{"a"}', 4, COLON),
        ('{"a"', 4, COLON),
        ("[1 2]", 3, COMMA),
        ("[1}", 2, COMMA),
        ('{"a":1]', 6, COMMA),
        ('{"a":01}', 6, COMMA),
        ('{"a":1.}', 6, COMMA),
        ('{"a":0x1}', 6, COMMA),
        ('{"a":1e}', 6, COMMA),
        ('{"a":1', 6, COMMA),
        ("[1", 2, COMMA),
        ("{} {}", 3, "Extra data"),
        ("01", 1, "Extra data"),
        ("{} NaN", 3, "Extra data"),
        ("null\ufeff", 4, "Extra data"),
        ('{"a', 1, "Unterminated string starting at"),
        ('"abc\\', 0, "Unterminated string starting at"),
        ('{"a":"b\n"}', 7, "Invalid control character at"),
        ('"\x00"', 1, "Invalid control character at"),
        ('"\x1f"', 1, "Invalid control character at"),
        ('{"a":"\\x41"}', 6, "Invalid \\escape"),
        ('{"a":"\\u12"}', 7, "Invalid \\uXXXX escape"),
        ('{"a":"\\u+123"}', 7, "Invalid \\uXXXX escape"),
        ('{"a":"\\ud800\\u12"}', 13, "Invalid \\uXXXX escape"),
        ('{"😀😀" x}', 6, COLON),
        ("NaN", 0, RANGE),
        ("-Infinity", 0, RANGE),
        ("[Infinity]", 1, RANGE),
        ('{"a":NaN,}', 5, RANGE),
        ('{"a":1,,"b":NaN}', 7, KEY),
        ('{"NaN":"Infinity \\" NaN","b":[{}, -Infinity]}', 34, RANGE),
        ('{"a":"\\\\","b":NaN}', 14, RANGE),
        ('{"role":NaN,"role":"user","content":"x"}', 8, RANGE),
        ("NaNs", 0, RANGE),
    ],
)
def test_malformed_json_is_told_with_its_place(api: Api, thread_id: str, text: str, position: int, reason: str) -> None:
    assert post(api, thread_id, text.encode()) == json_invalid(position, reason)
    # A byte order mark is dropped, and position 0 is the character after it.
    assert post(api, thread_id, b"\xef\xbb\xbf" + text.encode()) == json_invalid(position, reason)


def test_byte_order_mark_is_accepted_once(api: Api, thread_id: str) -> None:
    mark = b"\xef\xbb\xbf"
    assert post(api, thread_id, mark + GOOD)[0] == 200
    assert post(api, thread_id, mark * 2 + GOOD) == json_invalid(0, VALUE)
    assert post(api, thread_id, mark) == json_invalid(0, VALUE)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"\xff"}',
        b"\xff{",
        b'{"a":"\xc3"}',
        b'{"a":"\xc0\x80"}',
        b'{"a":"\xed\xa0"}',
        b'{"a":"\xf4\x90\x80\x80"}',
        b"\x1f\x8b\x08\x00compressed",
        '{"a":"é"}'.encode("latin-1"),
        '{"a":"é"}'.encode("utf-16"),
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=latin-1"])
def test_bytes_that_are_not_utf8_are_400(api: Api, thread_id: str, body: bytes, content_type: str) -> None:
    assert post(api, thread_id, body, content_type) == UNREADABLE


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_other_encodings_of_unicode_are_never_accepted(api: Api, thread_id: str, encoding: str) -> None:
    status, body = post(api, thread_id, GOOD.decode().encode(encoding))
    assert status in (400, 422)
    assert "detail" in body


@pytest.mark.parametrize("raw", [b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\xbd\xed\xb8\x80", b"\\ud83d\xed\xb8\x80"])
def test_surrogate_bytes_are_read_as_the_lone_surrogates_they_are(api: Api, thread_id: str, raw: bytes) -> None:
    body = GOOD.replace(b"hello", raw)
    assert post(api, thread_id, body) == (422, {"detail": [detail_of("surrogate", "content")]})


def test_escaped_pair_is_one_character(api: Api, thread_id: str) -> None:
    status, message = post(api, thread_id, GOOD.replace(b"hello", b"\\ud83d\\ude00"))
    assert (status, message["content"][0]["text"]["value"]) == (200, "😀")


def test_last_of_duplicate_keys_wins_at_its_first_place(api: Api, thread_id: str) -> None:
    body = b'{"role":1,"content":"a","content":"b","metadata":{"x":1,"y":2,"x":"z"},"\\u0072ole":"user"}'
    assert post(api, thread_id, body) == (422, {"detail": [detail_of("str", "metadata", "y")]})
    status, message = post(api, thread_id, body.replace(b'"y":2', b'"y":"2"'))
    assert (status, message["content"][0]["text"]["value"]) == (200, "b")
    assert message["metadata"] == {"x": "z", "y": "2"}


def test_hundred_levels_are_judged_and_ten_thousand_refused(api: Api, thread_id: str) -> None:
    extra = (422, {"detail": [detail_of("extra", "a")]})
    assert post(api, thread_id, GOOD[:-1] + b',"a":' + b"[" * 99 + b"]" * 99 + b"}") == extra
    for depth in (10_000, 100_000):
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
            deep = opening * depth + b"1" + closing * depth
            assert post(api, thread_id, deep) == UNREADABLE
            assert post(api, thread_id, opening * depth) == UNREADABLE


def test_numbers_of_any_size_are_never_an_error_of_the_server(api: Api, thread_id: str) -> None:
    wrong_type = (422, {"detail": [detail_of("str", "content")]})
    assert post(api, thread_id, GOOD.replace(b'"hello"', b"1" * 4300)) == wrong_type
    assert post(api, thread_id, GOOD.replace(b'"hello"', b"1" * 4301)) == UNREADABLE
    assert post(api, thread_id, GOOD.replace(b'"hello"', b"1" * 1_000_000)) == UNREADABLE
    assert post(api, thread_id, GOOD.replace(b'"hello"', b"1e400")) == wrong_type
    assert post(api, thread_id, GOOD.replace(b'"hello"', b"-0.0e-999999")) == wrong_type


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        " ",
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-16",
        "application/json;charset=nonsense",
        'application/json; boundary="',
        "application/json;",
        " application/json ",
        "application/vnd.api+json",
        "application/+json",
        "application/problem+JSON; profile=x",
        "application/json; " + "x" * 4000,
    ],
)
def test_json_by_media_type_is_read(api: Api, thread_id: str, content_type: str | None) -> None:
    assert post(api, thread_id, GOOD, content_type)[0] == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/json",
        "image/svg+json",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "application/xml",
        "application/x-ndjson",
        "application/json-patch",
        "application/json-seq",
        "*/*",
        "text/html",
        "json",
        "/",
        "application/",
        "application/json, text/plain",
        "application/x, application/y+json",
        "application/a/b+json",
        "application/a b+json",
        "application/jsonx",
        "x-application/json",
        "application/json charset=utf-8",
        "application/" + "x" * 300 + "/json",
        ";",
        " ; ",
        "; charset=utf-8",
        ";application/json",
        "\xa0",
        "application/json\x85",
    ],
)
@pytest.mark.parametrize("body", [GOOD, b"{", b"\xff", b"null"])
def test_other_media_types_are_not_read(api: Api, thread_id: str, content_type: str, body: bytes) -> None:
    assert post(api, thread_id, body, content_type) == (422, {"detail": [detail_of("dict")]})


@pytest.mark.stateless
@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "\xa0"])
@pytest.mark.parametrize("path", ["/threads", "/threads/x", "/threads/x/messages", "/threads/x/messages/y"])
@pytest.mark.parametrize("body", [GOOD, b"{", b"null"])
def test_v2_error_names_the_media_type_to_send(api: Api, path: str, content_type: str, body: bytes) -> None:
    answer = api.post(path, body, content_type, HTTP_OPENAI_BETA="assistants=v2")
    message = (
        "value is not a valid dict. The body was not parsed because its Content-Type is not JSON. "
        "Send Content-Type: application/json."
    )
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": "type_error.dict"}
    assert (answer.status, answer.body) == (422, {"detail": [detail_of("dict")], "error": error})


@pytest.mark.stateless
@pytest.mark.parametrize("body", [b"[]", b"5", b'"x"'])
def test_v2_error_of_parsed_json_does_not_name_a_media_type(api: Api, body: bytes) -> None:
    answer = api.post("/threads/x/messages", body, HTTP_OPENAI_BETA="assistants=v2")
    assert answer.body["error"]["message"] == "value is not a valid dict"


def test_no_bytes_are_no_body_for_every_media_type(api: Api, thread_id: str) -> None:
    for content_type in (None, "application/json", "text/plain", "multipart/form-data"):
        assert post(api, thread_id, b"", content_type) == (422, {"detail": [detail_of("missing")]})


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "identity, gzip", "x"])
def test_compressed_body_is_415(api: Api, thread_id: str, encoding: str) -> None:
    answer = api.post(f"/threads/{thread_id}/messages", GOOD, HTTP_CONTENT_ENCODING=encoding)
    assert (answer.status, answer.body) == (415, {"detail": "Unsupported Content-Encoding"})
    assert not Message.objects.filter(thread=thread_id).exists()


@pytest.mark.parametrize("encoding", ["identity", "Identity", "", " "])
def test_body_with_the_identity_encoding_is_accepted(api: Api, thread_id: str, encoding: str) -> None:
    assert api.post(f"/threads/{thread_id}/messages", GOOD, HTTP_CONTENT_ENCODING=encoding).status == 200


def test_body_of_four_megabytes_is_judged_and_a_larger_one_is_413(api: Api, thread_id: str) -> None:
    limit = 4 * 1024 * 1024
    assert post(api, thread_id, GOOD + b" " * (limit - len(GOOD)))[0] == 200
    too_large = (413, {"detail": "Request body too large"})
    assert post(api, thread_id, GOOD + b" " * (limit - len(GOOD) + 1)) == too_large
    assert post(api, "thread_none", b"\xff" * (limit + 1)) == too_large
    assert Message.objects.filter(thread_id=thread_id).count() == 1


def test_thread_may_be_made_with_sixteen_megabytes(api: Api) -> None:
    limit = 16 * 1024 * 1024
    assert api.post("/threads", b"{}" + b" " * (limit - 2)).status == 200
    assert api.post("/threads", b"{}" + b" " * (limit - 1)).status == 413


@pytest.mark.stateless
@pytest.mark.parametrize(
    ("text", "told_by_3_13", "position", "reason"),
    [
        ('{"a":1, }', ("Illegal trailing comma before end of object", 6), 8, KEY),
        ("[1,\n]", ("Illegal trailing comma before end of array", 2), 4, VALUE),
        ("[1 2]", (COMMA, 3), 3, COMMA),
    ],
)
def test_errors_of_newer_pythons_are_told_in_the_older_words(
    text: str, told_by_3_13: tuple[str, int], position: int, reason: str
) -> None:
    assert as_before_3_13(json.JSONDecodeError(told_by_3_13[0], text, told_by_3_13[1])) == (reason, position)
