"""Failed admin log-ins: the name and address under which they are counted, and the page for locked-out clients."""

from datetime import timedelta
from http import HTTPStatus
from math import ceil
from typing import Any

from axes.models import AccessAttempt
from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from threadsvc.access.proxies import counted_as


def counted_address(request: HttpRequest) -> str | None:
    return counted_as(request.META.get("REMOTE_ADDR", ""))


def counted_name(request: HttpRequest, credentials: dict[str, Any] | None) -> str | None:
    """Return the submitted name, truncated to the length of axes' column. No account has a longer name."""
    name: str | None = (credentials or request.POST).get("username")
    return name and name[:255]


def locked(request: HttpRequest, answer: HttpResponse | None, credentials: dict[str, Any] | None) -> HttpResponse:
    """Return a 429 response with a page that shows how long to wait."""
    counted = {"username": counted_name(request, credentials), "ip_address": counted_address(request)}
    failed = AccessAttempt.objects.filter(**counted)
    last = max(failed.values_list("attempt_time", flat=True), default=timezone.now())
    wait = max(last + settings.AXES_COOLOFF_TIME - timezone.now(), timedelta(seconds=1))
    context = {**admin.site.each_context(request), "minutes": ceil(wait / timedelta(minutes=1))}
    response = render(request, "threadsvc/locked.html", context, status=HTTPStatus.TOO_MANY_REQUESTS)
    response["Retry-After"] = str(ceil(wait.total_seconds()))
    return response
