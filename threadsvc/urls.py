"""Every path of the service. Only admin pages end in a slash. /docs/ and /redoc/ redirect to /docs and /redoc."""

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.decorators.http import require_safe
from django.views.generic import RedirectView
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiYamlRenderer

from threadsvc import pages
from threadsvc.api import openapi
from threadsvc.api.errors import page_not_found
from threadsvc.observability import health
from threadsvc.observability.requests import UNKNOWN_ROUTE

handler400 = "threadsvc.api.errors.bad_request"
handler403 = "threadsvc.api.errors.permission_denied"
handler404 = "threadsvc.api.errors.page_not_found"
handler500 = "threadsvc.api.errors.server_error"

admin.site.site_title = "threadsvc"
admin.site.site_header = "threadsvc"
admin.site.index_title = "Conversations, accounts and API keys"
admin.site.site_url = "/"
admin.site.enable_nav_sidebar = False

urlpatterns = [
    path("", include("messages_app.api.assistants.urls")),
    path("v1/", include("messages_app.api.assistants.urls")),
    path("", pages.front),
    path("healthz", require_safe(health.healthz)),
    path("readyz", require_safe(health.readyz)),
    path("openapi.yaml", openapi.schema, {"renderer": OpenApiYamlRenderer, "content_type": "application/yaml"}),
    path("openapi.json", openapi.schema, {"renderer": OpenApiJsonRenderer, "content_type": "application/json"}),
    path("docs", openapi.swagger_ui),
    path("docs/", require_safe(RedirectView.as_view(url="/docs", permanent=True))),
    path("redoc", openapi.redoc),
    path("redoc/", require_safe(RedirectView.as_view(url="/redoc", permanent=True))),
    path("redoc.js", openapi.redoc_bundle),
    path("favicon.ico", require_safe(RedirectView.as_view(url="/static/threadsvc/favicon.svg"))),
    path("admin", require_safe(RedirectView.as_view(url="/admin/"))),
    path("admin/", admin.site.urls),
    re_path("^static/", page_not_found),  # for missing files: WhiteNoise serves existing ones
    re_path("", pages.unknown_path, name=UNKNOWN_ROUTE),
]
