"""THREADSVC_RATE_LIMIT: 429 for who asks too often, by key, or by address where there is none."""

import functools
import logging
from typing import TYPE_CHECKING, Any

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from threadsvc.access.proxies import counted_as
from threadsvc.access.rates import RateTable

if TYPE_CHECKING:  # rest_framework.views imports this module while it is being imported itself
    from rest_framework.views import APIView

logger = logging.getLogger(__name__)

table = functools.cache(RateTable)


class RateLimit(BaseThrottle):
    seconds: float = 0

    def allow_request(self, request: Request, view: "APIView") -> bool:
        if settings.RATE_LIMIT is None:
            return True
        try:
            self.seconds = table(settings.RATE_FILE).take(client_of(request), *settings.RATE_LIMIT)
        except OSError as error:  # better a service without limits than none
            logger.error("the rate limit does not hold: %s: %s", settings.RATE_FILE, error.strerror)
            return True
        return self.seconds == 0

    def wait(self) -> float:
        return self.seconds


def client_of(request: Request) -> str:
    """Whose requests are counted together: those of a key, or the anonymous ones of an address."""
    key: Any = request.auth
    if key is not None:
        return f"key {key.prefix}"
    return f"address {counted_as(request.META.get('REMOTE_ADDR', ''))}"
