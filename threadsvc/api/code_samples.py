"""The code samples of the OpenAPI document (`x-codeSamples`): each request in curl, Python, JavaScript and Go.

tests/test_code_samples.py runs them.
"""

import json
import re
from typing import Any, NamedTuple
from urllib.parse import urlencode

ORIGIN = "http://127.0.0.1:8000"  # /docs and /redoc replace it with their own origin
API_KEY = "YOUR_API_KEY"


class Sample(NamedTuple):
    """A sample request.

    `ids` contains the ids in its path, in order. `sdk` is a method of OpenAI's client, or empty.
    """

    method: str
    path: str
    ids: dict[str, str]
    query: dict[str, Any]
    body: dict[str, Any] | None
    sdk: str

    @property
    def url(self) -> str:
        query = f"?{urlencode(self.query)}" if self.query else ""
        return f"{ORIGIN}/v1{self.path.format(**self.ids)}{query}"

    @property
    def headers(self) -> dict[str, str]:
        content_type = {} if self.body is None else {"Content-Type": "application/json"}
        return {"Authorization": f"Bearer {API_KEY}", **content_type}

    @property
    def sdk_arguments(self) -> tuple[list[str], dict[str, Any]]:
        """The positional and the named arguments of the SDK's method. The last id is positional."""
        names = [*self.ids]
        named = {name: self.ids[name] for name in names[:-1]}
        return [self.ids[name] for name in names[-1:]], {**named, **self.query, **(self.body or {})}


def code_samples(sample: Sample) -> list[dict[str, str]]:
    """Return the value of `x-codeSamples`."""
    sources = {
        "curl": ("Shell", curl(sample)),
        "Python": ("Python", python_sdk(sample) if sample.sdk else python(sample)),
        "JavaScript": ("JavaScript", javascript_sdk(sample) if sample.sdk else javascript(sample)),
        "Go": ("Go", go(sample)),
    }
    return [{"lang": lang, "label": label, "source": source} for label, (lang, source) in sources.items()]


def curl(sample: Sample) -> str:
    method = "-X DELETE " if sample.method == "DELETE" else ""
    lines = [f'curl {method}"{sample.url}"', *(f'-H "{name}: {value}"' for name, value in sample.headers.items())]
    if sample.body is not None:
        lines.append(f"-d '{json.dumps(sample.body)}'")
    return " \\\n  ".join(lines) + "\n"


def python_sdk(sample: Sample) -> str:
    ids, named = sample.sdk_arguments
    arguments = [*map(json.dumps, ids), *(f"{name}={_python(value)}" for name, value in named.items())]
    return f"""\
from openai import OpenAI

client = OpenAI(base_url="{ORIGIN}/v1", api_key="{API_KEY}")
response = client.{sample.sdk}(
    {_lines(arguments, 4)},
)
print(response.to_json())
"""


def python(sample: Sample) -> str:
    return f"""\
import json
from urllib.request import Request, urlopen

request = Request(
    "{sample.url}",
    headers={_python(sample.headers)},
)
with urlopen(request) as response:
    print(json.load(response))
"""


def javascript_sdk(sample: Sample) -> str:
    ids, named = sample.sdk_arguments
    arguments = [*map(json.dumps, ids), *([_javascript(named)] if named else [])]
    return f"""\
import OpenAI from "openai";

const client = new OpenAI({{ baseURL: "{ORIGIN}/v1", apiKey: "{API_KEY}" }});
const response = await client.{sample.sdk}(
  {_lines(arguments, 2)},
);
console.log(response);
"""


def javascript(sample: Sample) -> str:
    return f"""\
const response = await fetch("{sample.url}", {{
  headers: {_javascript(sample.headers)},
}});
console.log(await response.json());
"""


def go(sample: Sample) -> str:
    has_body = sample.body is not None
    imports = ["io", "log", "net/http", "os", *(["strings"] if has_body else [])]
    lines = [
        "package main",
        "",
        "import (",
        *(f'\t"{name}"' for name in imports),
        ")",
        "",
        "func main() {",
        *([f"\tbody := strings.NewReader(`{json.dumps(sample.body)}`)"] if has_body else []),
        f'\trequest, err := http.NewRequest("{sample.method}", "{sample.url}", {"body" if has_body else "nil"})',
        "\tif err != nil {",
        "\t\tlog.Fatal(err)",
        "\t}",
        *(f'\trequest.Header.Set("{name}", "{value}")' for name, value in sample.headers.items()),
        "\tresponse, err := http.DefaultClient.Do(request)",
        "\tif err != nil {",
        "\t\tlog.Fatal(err)",
        "\t}",
        "\tdefer response.Body.Close()",
        "\tio.Copy(os.Stdout, response.Body)",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _lines(arguments: list[str], indent: int) -> str:
    return f",\n{' ' * indent}".join(arguments)


def _python(value: Any) -> str:
    """Return a JSON value as a Python literal with double quotes.

    Does not convert true and false, because no example contains them.
    """
    return re.sub(r"\bnull\b", "None", json.dumps(value))


def _javascript(value: Any) -> str:
    """Return a JSON value as a JavaScript literal. Keys that are valid names have no quotes."""
    return re.sub(r'"(\w+)": ', r"\1: ", json.dumps(value)).replace("{", "{ ").replace("}", " }")
