"""Authentication by API key. Source: threads-api contract, "Access"."""

from django.conf import settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from threadsvc.access.models import KEY_MARK, APIKey
from threadsvc.access.usage import record_use


class InvalidAPIKey(AuthenticationFailed):
    default_detail = "Invalid API key"


class BearerKeyAuthentication(BaseAuthentication):
    """Sets `request.auth` to the key, or to None for an anonymous request, if allowed. Raises InvalidAPIKey (401)."""

    def authenticate(self, request: Request) -> tuple[None, APIKey] | None:
        token = bearer_token(request.META.get("HTTP_AUTHORIZATION", ""))
        if not token.startswith(KEY_MARK):  # any other token counts as no key: SDKs always send a token
            if settings.ALLOW_ANONYMOUS:
                return None
            raise InvalidAPIKey
        try:
            key = APIKey.objects.usable(token)
        except APIKey.DoesNotExist:
            raise InvalidAPIKey from None
        record_use(key.prefix)
        return None, key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def bearer_token(authorization: str) -> str:
    """Return the token after `Bearer` (in any case), or "" for another scheme."""
    scheme, _, token = authorization.partition(" ")
    return token.strip(" ") if scheme.lower() == "bearer" else ""
