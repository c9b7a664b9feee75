"""Unusual values for each part of a request. Values of these kinds have caused failures in services."""

# fmt: off

# Texts for a path or a query, as they appear in the URL.
TEXTS = [
    b"", b"0", b"-1", b"+1", b"1e400", b"9" * 20, b"9" * 4400, b"\xd9\xa1", b"null", b"NaN", b"%00", b"a%00b",
    b"%", b"%zz", b"%ff", b"%C0%80", b"%ED%A0%80", b"%ed%a0%bd%ed%b8%80", b"%F0%9F%98%80", b"%F4%90%80%80",
    b"%2F", b"%2e%2e%2f", b"..", b".", b"//", b"/", b"\\", b"%5C", b"%0d%0aX-A:%20b", b"%20", b"+", b"*", b"?",
    b"#", b";", b"&", b"=", b"[", b"]", b"[]", b"'", b'"', b"' OR 1=1 --", b"%27%20OR%201=1%20--", b"%25s",
    b"%s%s%n", b"${x}", b"{{x}}", b"$where", b"a.b.$c", b"%EF%BF%BF", b"%EF%BB%BF", b"\xc3\xa9", b"\xff",
    b"\x01", b"\x7f", b"\x85", b"a" * 300, b"a" * 9000, b"a" * 70000, b"%E2%80%AE", b"thread_",
    b"msg_" + b"0" * 26, b"thread_" + b"z" * 26, b"thread_" + b"Z" * 27, b"tsk_x", b"{thread_id}",
    b"{message_id}", b"{thread_id}%00", b"{message_id}x", b"runs", b"__proto__", b"constructor", b"1-1-1",
    b"2026-02-30", b"0001-01-01", b"9999-12-31", b"99999-01-01", b"1,2,3", b"-1.-2.3", b"1" * 40,
]

# Values for a JSON body, valid and invalid.
FRAGMENTS = [
    b"null", b"true", b"0", b"-0", b"-0.0", b"1.5", b"1e400", b"-1e-400", b"9" * 19, b"9" * 4300, b"9" * 4301,
    b"9" * 100000, b"NaN", b"-Infinity", b"[]", b"{}", b'""', b'"\\u0000"', b'"\\ud800"', b'"\\udc00\\ud800"',
    b'"\\ud83d\\ude00"', b'"\xed\xa0\x80"', b'"\xff"', b'"\x00"', b'"\xf4\x90\x80\x80"',
    b'"\\uFFFF\xef\xbb\xbf"', b'"\\u202e\\u0085\\u2028"', b'"' + b"x" * 513 + b'"', b'"' + b"x" * 40000 + b'"',
    b'"' + b"\\ud83d\\ude00" * 32769 + b'"', b'"' + b"x" * 256001 + b'"', b"[" * 100 + b"]" * 100,
    b"[" * 990 + b"]" * 990, b"[" * 100000, b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b"[" + b"null," * 5000 + b"1]", b'["f","f","","\\u0000",1,null]', b'[{"type":"text","text":"x"}]',
    b'[{"type":"text","text":""},{"type":"image_url","image_url":{"url":"u","detail":"?"}},{"type":"x"},1,null]',
    b'[{"type":"image_file","image_file":{"file_id":"\\ud800","x":1}}]',
    b'[{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"text","text":"y"}]}]',
    b"[" + b'{"role":"user","content":"x"},' * 100 + b'{"role":"user","content":"x"}]',
    b'[{"file_id":"f","tools":[{"type":"file_search"}]},{"file_id":"","tools":null},{"tools":[{"type":[]}]}]',
    b'{"a.b":"c","$set":"x","":"","\\u0000":"x","_id":"y"}', b'{"key":null,"k":"v","\\ud800":"v","n":5}',
    b"{" + b",".join(b'"k%d":"v"' % number for number in range(17)) + b"}",
    b"{" + b",".join(b'"k%d":null' % number for number in range(3000)) + b"}", b'{"k":"v","k":"w","k":null}',
    b'{"$gt":""}', b'{"$oid":"x"}', b'{"$numberLong":"9"}', b'{"__class__":"x"}', b"{'a':1}", b"{,}", b"[1,]",
    b"//", b"\xef\xbb\xbf{}", b"\xc2\xa0", b'"user"', b'"assistant"', b'"tool_call"', b'"user\\u0000"',
]

MEDIA_TYPES = [
    b"", b"application/json", b"APPLICATION/JSON; charset=utf-16", b"application/json; charset=\xff",
    b"application/json; charset*=bogus''x", b"application/problem+json", b"application/json, text/plain",
    b"application/json;", b";;;", b"/", b"text/plain", b"application/x-www-form-urlencoded",
    b"application/x-www-form-urlencoded; charset=utf-7",
    b"application/x-www-form-urlencoded; charset=undefined", b"multipart/form-data",
    b"multipart/form-data; boundary=", b"multipart/form-data; boundary=x",
    b"multipart/form-data; boundary*=bogus''x", b"multipart/form-data; boundary=\xff",
    b"multipart/form-data; boundary=" + b"b" * 300, b"multipart/mixed; boundary=x", b"\x01",
    b"application/json\x00", b"x" * 10000,
]

# Multipart bodies.
MULTIPART = [
    b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\nroot\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; name="a"; filename="../b"\r\nContent-Type: text/plain\r\n\r\nc\r\n--x--',
    b'--x\r\nContent-Disposition: form-data; name="csrfmiddlewaretoken"\r\n\r\n{csrf}\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; name*=utf-8\'\'%ff; filename*=x\r\n\r\n\r\n--x--\r\n',
    b"--x\r\n\r\n\r\n--x", b"--x--", b"--x\r\n" * 1200,
]

# Headers, with values that are valid or almost valid.
HEADERS: dict[bytes, list[bytes]] = {
    b"OpenAI-Beta": [b"assistants=v2", b"assistants=v1,  ASSISTANTS=V2 ,", b"assistants=v3", b",", b"\xff"],
    b"Idempotency-Key": [b"", b"k", b"k" * 255, b"k" * 256, b"a b", b"\xc3\xa9", b"\x7f", b"{thread_id}"],
    b"Authorization": [
        b"", b"Bearer", b"Bearer ", b"Bearer tsk_x", b"Bearer tsk_" + b"x" * 4000, b"bearer  tsk_x y",
        b"Basic Og==", b"Basic !", b"Bearer \xff", b"Bearer tsk_\x00", b"Bearer tsk_.x.y", b"Bearer sk-test",
    ],
    b"x-request-id": [b"", b"id", b"x" * 128, b"x" * 129, b"\xff", b"a b", b'"},{"'],
    b"Host": [
        b"", b"localhost", b"127.0.0.1:99999", b"evil.example", b"[::1", b"localhost\x00", b"a,b", b"@",
        b"\xff",
    ],
    b"Origin": [b"null", b"http://localhost", b"http://[", b"https://evil.example", b"\xff", b"http://localhost:x"],
    b"Cookie": [
        b"sessionid={session}", b"sessionid=x", b"csrftoken=\x01", b"sessionid=%00", b"=;=;", b'messages="',
        b"messages=W1siX19qc29uX21lc3NhZ2UiLDAsMjUsIngiXV0:x:y", b"a=" + b"b" * 8000, b"csrftoken=" + b"x" * 32,
        b"{cookie}; sessionid=", b"\xff=\xff",
    ],
    b"X-CSRFToken": [b"{csrf}", b"", b"x", b"\xff"],
    b"Referer": [b"http://[", b"https://localhost/", b"\xff"],
    b"Accept": [b"text/html", b"*/*;q=x", b"application/xml", b"", b"\xff"],
    b"Accept-Encoding": [b"gzip", b"br;q=0, *;q=x", b"\xff"],
    b"Accept-Language": [b"de", b"x" * 5000, b"..", b"zh-Hant-\x01", b"\xff"],
    b"Range": [
        b"bytes=0-", b"bytes=-1", b"bytes=9-1", b"bytes=99999999999999999999-", b"bytes=x",
        b"bytes=" + b"1" * 5000,
    ],
    b"If-None-Match": [b"*", b'"x"', b"\xff"],
    b"If-Modified-Since": [
        b"Thu, 01 Jan 1970 00:00:00 GMT", b"x", b"Thu, 01 Jan 99999 00:00:00 GMT",
        b"Mon, 31 Feb 0000 99:99:99 GMT", b"Wed, 21 Oct 2099 07:28:00 GMT", b"\xff",
    ],
    b"X-Forwarded-For": [b"127.0.0.1", b"x", b"\xff", b"::1, " * 500],
    b"X-Forwarded-Proto": [b"https", b"\xff"],
    b"X-Forwarded-Host": [b"evil.example"],
    b"Forwarded": [b"for=x;proto=https"],
    b"X-HTTP-Method-Override": [b"DELETE"],
    b"X-Requested-With": [b"XMLHttpRequest"],
    b"Access-Control-Request-Method": [b"POST"],
    b"Content-Encoding": [b"gzip", b"x"],
    b"Content-Disposition": [b"\xff"],
    b"User-Agent": [b"", b"\xff", b"x" * 8000],
    b"Expect": [b"100-continue", b"x"],
    b"TE": [b"trailers"],
    b"Trailer": [b"x"],
    b"Script-Name": [b"/x"],
    b"X_Request_Id": [b"x"],
    b"Proxy": [b"x"],
    b"Date": [b"x"],
    b"Content-Length": [
        b"-1", b"+5", b"5, 5", b"5_0", b"0x5", b"9" * 30, b"9" * 5000, b"\xd9\xa1", b"", b"1.0", b"100000000",
    ],
    b"Transfer-Encoding": [
        b"chunked", b"identity", b"gzip, chunked", b"chunked, chunked", b"xchunked", b"CHUNKED", b"\xff", b"",
    ],
    b"Connection": [b"close", b"keep-alive, Upgrade, HTTP2-Settings", b"content-length", b"\xff"],
    b"Upgrade": [b"h2c", b"websocket"],
    b"HTTP2-Settings": [b"AAMAAABkAAQAoAAAAAIAAAAA"],
    b"": [b"x"],
    b"X A": [b"x"],
    b"X\xff": [b"x"],
    b"X" * 9000: [b"x"],
    b" X": [b"x"],
}

METHODS = [
    b"HEAD", b"PUT", b"PATCH", b"OPTIONS", b"TRACE", b"DELETE", b"GET", b"POST", b"CONNECT", b"get", b"FOO",
    b"", b"P\xffT", b"X" * 300, b"PRI", b"GET GET",
]

VERSIONS = [
    b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9", b"http/1.1", b"", b"HTTP/1.1 x", b"HTTP/1.999999999999",
]

# Bytes to insert at any position.
NASTY = [
    b"\x00", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b":", b"%", b"\xff", b"\xed\xa0\x80", b"{", b"[",
    b'"', b"\\", b"\r\n x", b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"-1\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01", b"PROXY TCP4",
]
