"""The probes: /healthz (liveness) and /readyz (readiness)."""

import logging

from django.apps import apps
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse

from threadsvc.api.errors import service_unavailable
from threadsvc.engines.base import error_reason

logger = logging.getLogger(__name__)


def healthz(request: HttpRequest) -> HttpResponse:
    """Return 200 while the process can respond."""
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> HttpResponse:
    """Return 200 if every table can be read, else 503. One small query per table."""
    try:
        for model in apps.get_models():
            model._default_manager.exists()
    except DatabaseError as error:
        logger.warning("not ready: %s", error_reason(error))
        return service_unavailable()
    return JsonResponse({"status": "ready"})
