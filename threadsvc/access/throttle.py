"""THREADSVC_RATE_LIMIT: a key, or an address without a key, gets 429 if it sends too many requests.

If no limit is set, the settings do not install RateLimit.
"""

import functools
import logging
from typing import TYPE_CHECKING, Any

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from threadsvc.access.proxies import counted_as
from threadsvc.access.rates import RateTable

if TYPE_CHECKING:  # rest_framework.views imports this module: avoid a circular import
    from rest_framework.views import APIView

logger = logging.getLogger(__name__)

table = functools.cache(RateTable)


class RateLimit(BaseThrottle):
    seconds: float = 0

    def allow_request(self, request: Request, view: "APIView") -> bool:
        limit: Any = settings.RATE_LIMIT  # not None if this class is installed
        try:
            self.seconds = table(settings.RATE_FILE).take(throttled_client(request), *limit)
        except OSError as error:  # serve requests without a limit instead of refusing them
            logger.error("the rate limit does not hold: %s: %s", settings.RATE_FILE, error.strerror)
            return True
        return self.seconds == 0

    def wait(self) -> float:
        return self.seconds


def throttled_client(request: Request) -> str:
    """Return the name under which requests are counted.

    This is the key's prefix, or the address of a client without a key.
    """
    key: Any = request.auth
    if key is not None:
        return f"key {key.prefix}"
    return f"address {counted_as(request.META.get('REMOTE_ADDR', ''))}"
