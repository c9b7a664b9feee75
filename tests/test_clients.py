"""The newest openai-python with a running service. scripts/check-openai-1.6.1 checks an older version."""

import pytest
from openai import OpenAI
from openai.types.beta.threads import Message
from pydantic import ValidationError

from tests.clients.openai_current import CHECKS, Check, validating_client
from tests.conftest import Served


def base_url(served: Served) -> str:
    return f"http://127.0.0.1:{served.port}/v1"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_openai_current(served: Served, check: Check) -> None:
    with validating_client(base_url(served)) as client:
        check(client)


# The validating client must detect invalid responses. Otherwise the checks prove nothing.


def message_in_the_default_shape(client: OpenAI) -> Message:
    thread = client.beta.threads.create()
    return client.beta.threads.messages.create(
        thread.id, role="user", content="x", extra_headers={"OpenAI-Beta": "assistants=v1"}
    )


def error_in_the_default_shape(client: OpenAI) -> object:
    return client.beta.threads.retrieve("thread_none", extra_headers={"OpenAI-Beta": "assistants=v1"})


def list_of_threads(client: OpenAI) -> object:
    client.beta.threads.create()
    return client.get("/threads", cast_to=object)


def object_unknown_to_the_sdk(client: OpenAI) -> object:
    return client.with_options(base_url=str(client.base_url).removesuffix("/v1/")).get("/healthz", cast_to=object)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (message_in_the_default_shape, ValidationError),
        (error_in_the_default_shape, ValidationError),
        (list_of_threads, ValidationError),
        (object_unknown_to_the_sdk, KeyError),
    ],
)
def test_client_raises_on_an_unexpected_response(served: Served, call: Check, error: type[Exception]) -> None:
    with pytest.raises(error), validating_client(base_url(served)) as client:
        call(client)


def test_client_raises_if_no_response_was_validated(served: Served) -> None:
    with pytest.raises(AssertionError, match="no response was validated"), validating_client(base_url(served)):
        pass
