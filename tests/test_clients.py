"""Today's openai-python, used as its users do. An older one is checked by scripts/check-openai-1.6.1."""

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


# The checks are only worth what their client notices.


def in_the_default_shape(client: OpenAI) -> Message:
    thread = client.beta.threads.create()
    return client.beta.threads.messages.create(
        thread.id, role="user", content="x", extra_headers={"OpenAI-Beta": "assistants=v1"}
    )


def refused_in_the_default_shape(client: OpenAI) -> object:
    return client.beta.threads.retrieve("thread_none", extra_headers={"OpenAI-Beta": "assistants=v1"})


def a_list_of_threads(client: OpenAI) -> object:
    client.beta.threads.create()
    return client.get("/threads", cast_to=object)


def no_object_of_the_sdk(client: OpenAI) -> object:
    return client.with_options(base_url=str(client.base_url).removesuffix("/v1/")).get("/healthz", cast_to=object)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (in_the_default_shape, ValidationError),
        (refused_in_the_default_shape, ValidationError),
        (a_list_of_threads, ValidationError),
        (no_object_of_the_sdk, KeyError),
    ],
)
def test_client_fails_where_an_answer_is_not_what_the_sdk_expects(
    served: Served, call: Check, error: type[Exception]
) -> None:
    with pytest.raises(error), validating_client(base_url(served)) as client:
        call(client)


def test_client_fails_where_no_answer_was_validated(served: Served) -> None:
    with pytest.raises(AssertionError, match="no answer was validated"), validating_client(base_url(served)):
        pass
