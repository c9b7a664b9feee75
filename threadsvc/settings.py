"""The settings. Every setting for operators is an environment variable.

The functions below read the variables. A test compares the variables with the table in docs/settings.md.
"""

import os
import re
import secrets
import tempfile
from collections.abc import Callable
from datetime import timedelta
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.core.exceptions import ImproperlyConfigured

from threadsvc import __version__
from threadsvc.engines.urls import database_from_url

BASE_DIR = Path(__file__).resolve().parent.parent

# Functions that read variables. They raise ImproperlyConfigured with the variable's name if its value is not valid.

SETTINGS_READ: set[str] = set()


def env_text(name: str, default: str = "") -> str:
    """Return the variable's value, or the content of the file in NAME_FILE (for secrets), or `default`."""
    SETTINGS_READ.update((name, f"{name}_FILE"))
    value, file_name = os.environ.get(name, ""), os.environ.get(f"{name}_FILE", "")
    if value and file_name:
        raise ImproperlyConfigured(f"{name} and {name}_FILE are both set. Set only one.")
    if file_name:
        try:
            value = Path(file_name).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise ImproperlyConfigured(f"{name}_FILE: cannot read {file_name}: {reason}.") from error
    return value or default


def env_int(name: str, default: int, least: int, most: int) -> int:
    text = env_text(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise ImproperlyConfigured(f"{name}: {text!r} is not valid. Use a whole number from {least} to {most}.")
    return int(text)


def env_bool(name: str, default: bool) -> bool:
    text = env_text(name, "1" if default else "0")
    if text not in ("0", "1"):
        raise ImproperlyConfigured(f"{name}: {text!r} is not valid. Use 0 or 1.")
    return text == "1"


def env_list(name: str, default: str = "") -> list[str]:
    return [item.strip() for item in env_text(name, default).split(",") if item.strip()]


def env_networks(name: str) -> list[IPv4Network | IPv6Network]:
    networks = []
    for item in env_list(name):
        try:
            network = ip_network(item)
        except ValueError as error:
            raise ImproperlyConfigured(
                f"{name}: {item!r} is neither an address nor a network such as 10.0.0.0/8."
            ) from error
        if not network.prefixlen or "%" in item or item.lower().startswith("::ffff:"):
            raise ImproperlyConfigured(f"{name}: {item!r} matches every client, or none. List the proxies' addresses.")
        networks.append(network)
    return networks


def env_origins(name: str, form: str = r"https?://[^/?#@\s]+") -> list[str]:
    origins = env_list(name)
    for origin in origins:
        if not re.fullmatch(form, origin):
            raise ImproperlyConfigured(
                f"{name}: {origin!r} is not an origin. Use http(s)://host or http(s)://host:port."
            )
    return origins


def env_rate(name: str) -> tuple[int, int] | None:
    """Return a number of requests and a period in seconds, or None if the variable is not set."""
    text = env_text(name)
    if not text:
        return None
    rate = re.fullmatch(r"([1-9][0-9]{0,5})/(s|min|h)", text, re.ASCII)
    if not rate:
        raise ImproperlyConfigured(
            f"{name}: {text!r} is not a rate. Use a whole number from 1 to 999999 with /s, /min or /h, such as 600/min."
        )
    return int(rate[1]), {"s": 1, "min": 60, "h": 3600}[rate[2]]


def is_set(name: str) -> bool:
    return bool(os.environ.get(name) or os.environ.get(f"{name}_FILE"))


def env_choice(name: str, default: str, choices: tuple[str, ...]) -> str:
    text = env_text(name, default)
    if text not in choices:
        raise ImproperlyConfigured(f"{name}: {text!r} is not valid. Use one of {', '.join(choices)}.")
    return text


def unknown_setting(name: str) -> ImproperlyConfigured:
    """Return the error for a variable that is not a setting. It suggests the setting with the most similar name."""
    # Compare names without the prefix, because the prefix makes all names similar. A few names, such as PORT, have no
    # prefix and stay as they are.
    known = {setting.removeprefix("THREADSVC_"): setting for setting in SETTINGS_READ}
    nearest = get_close_matches(name.removeprefix("THREADSVC_"), known, n=1)
    advice = f"Did you mean {known[nearest[0]]}?" if nearest else "docs/settings.md lists all settings."
    return ImproperlyConfigured(f"{name} is not a setting. {advice}")


def data_file(name: str) -> Path:
    """Return the path of a file in the data directory. Creates the directory with mode 0700 if it is missing."""
    try:
        DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(DATA_DIR, error) from error
    return DATA_DIR / name


def read_or_create(path: Path, create: Callable[[], str]) -> str:
    """Return the text of the file. Creates the file with mode 0600 if it is missing.

    If several processes create the file at once, all of them return the same text.
    """
    try:
        if not path.exists():
            descriptor, draft = tempfile.mkstemp(dir=path.parent)  # with mode 0600
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(create())
                    file.flush()
                    os.fsync(descriptor)  # before os.link, so that a power failure never leaves a partial file
                os.link(draft, path)  # fails if the file exists, unlike a rename, so the first text is kept
            except FileExistsError:
                pass
            finally:
                os.unlink(draft)
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise unusable(path, error) from error
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise ImproperlyConfigured(f"{path} is empty or not text. Delete it, and the service creates a new one.")
    return text


def unusable(path: Path, error: OSError) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"cannot use {path}: {error.strerror}. Set THREADSVC_DATA_DIR to a writable directory.")


# The process

DATA_DIR = Path(env_text("THREADSVC_DATA_DIR", str(BASE_DIR / "var"))).absolute()
HOST = env_text("HOST", "127.0.0.1")
PORT = env_int("PORT", 8000, least=1, most=65535)
WEB_CONCURRENCY = env_int("WEB_CONCURRENCY", max(2, os.cpu_count() or 1), least=1, most=256)
THREADS_PER_WORKER = env_int("THREADSVC_THREADS_PER_WORKER", 8, least=1, most=256)
SHUTDOWN_SECONDS = env_int("THREADSVC_SHUTDOWN_SECONDS", 30, least=1, most=600)
METRICS_PORT = env_int("THREADSVC_METRICS_PORT", 0, least=0, most=65535)
if METRICS_PORT == PORT:
    raise ImproperlyConfigured(f"THREADSVC_METRICS_PORT: {METRICS_PORT} is also PORT. Use another port.")

# Security

DEBUG = env_bool("THREADSVC_DEBUG", default=False)
SECRET_KEY = env_text("THREADSVC_SECRET_KEY") or read_or_create(
    data_file("secret_key"), lambda: secrets.token_urlsafe(50)
)
# The default hosts include the address that the service listens on. 0.0.0.0 and :: are left out, because they mean all
# interfaces.
OWN_NAME = "" if HOST in ("0.0.0.0", "::") else f"[{HOST}]" if ":" in HOST else HOST
ALLOWED_HOSTS = env_list("THREADSVC_ALLOWED_HOSTS", f"localhost,127.0.0.1,[::1],{OWN_NAME}")
if not ALLOWED_HOSTS:
    raise ImproperlyConfigured(
        "THREADSVC_ALLOWED_HOSTS names no host, and every request would be refused. List at least one."
    )
CSRF_TRUSTED_ORIGINS = env_origins("THREADSVC_TRUSTED_ORIGINS")
CSRF_COOKIE_HTTPONLY = True
ALLOW_ANONYMOUS = env_bool("THREADSVC_ALLOW_ANONYMOUS", default=False)
# If False, `make run` decides: it requires no API keys if HOST is a loopback address and no proxy is configured.
ANONYMOUS_IS_DECIDED = is_set("THREADSVC_ALLOW_ANONYMOUS")

# Proxies in front of the service. A proxy with TLS also redirects to HTTPS. The service itself never redirects, because
# a client can turn a redirected POST into a GET (threads-api contract, "Everywhere").
TRUSTED_PROXIES = env_networks("THREADSVC_TRUSTED_PROXIES")
TLS = env_bool("THREADSVC_TLS", default=False)
if TLS:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")  # wsgi.py accepts it only from trusted proxies
    SECURE_HSTS_SECONDS = 365 * 24 * 60 * 60
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    # Browsers accept the prefix __Host- only over TLS and only from this host, so no sibling host can set the cookies.
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Host-sessionid", "__Host-csrftoken"

# Pages of these origins may call the API. Each value must be written as browsers send it in the Origin header: in lower
# case and without a path. Cookies are never allowed.
CORS_ALLOWED_ORIGINS = env_origins("THREADSVC_CORS_ORIGINS", r"https?://([a-z0-9._-]+|\[[0-9a-f:]+\])(:[0-9]+)?")
CORS_URLS_REGEX = r"^(/v1)?/threads(/|$)"
CORS_ALLOW_METHODS = ["GET", "POST", "DELETE"]
CORS_ALLOW_HEADERS = [
    *("authorization", "content-type", "idempotency-key", "openai-beta", "x-request-id"),
    # OpenAI's SDKs send these headers.
    *("openai-organization", "openai-project", "x-stainless-arch", "x-stainless-async", "x-stainless-helper-method"),
    *("x-stainless-lang", "x-stainless-os", "x-stainless-package-version", "x-stainless-raw-response"),
    *("x-stainless-read-timeout", "x-stainless-retry-count", "x-stainless-runtime", "x-stainless-runtime-version"),
    *("x-stainless-timeout",),
]
CORS_EXPOSE_HEADERS = ["x-request-id", "retry-after", "idempotent-replayed"]

# Admin log-ins. After repeated failures for one name from one address, this pair is locked for a while. axes counts the
# failures in the database, so the count is the same for all workers.
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # attempts during the lock do not extend it
AXES_RESET_ON_SUCCESS = True
AXES_CLIENT_IP_CALLABLE = "threadsvc.access.logins.counted_address"
AXES_USERNAME_CALLABLE = "threadsvc.access.logins.counted_name"
AXES_LOCKOUT_CALLABLE = "threadsvc.access.logins.locked"
AXES_DISABLE_ACCESS_LOG = True  # the table of log-ins would grow with each log-in
# No admin pages of axes, because they show text that strangers typed. To unlock a name, use the commands of axes.
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
AXES_SENSITIVE_PARAMETERS = ["username"]  # not logged, because some people type their password into this field

# Warnings of `check --deploy` that do not apply, with the reasons.
SILENCED_SYSTEM_CHECKS = [
    "security.W003",  # AdminCsrfMiddleware contains CsrfViewMiddleware. The API has no cookies and no forms.
    "security.W005",  # HSTS for subdomains: the owner of the domain configures this in the proxy
    "security.W021",  # HSTS preload: the owner of the domain configures this too
    "security.W008",  # SECURE_SSL_REDIRECT: the proxy redirects (see above)
]
if not TLS:  # threadsvc.W001 replaces these warnings with one line that names the setting
    SILENCED_SYSTEM_CHECKS += ["security.W004", "security.W010", "security.W016"]

# Apps and middleware

INSTALLED_APPS = [
    "threadsvc",  # before the admin: Django uses the first template with a name, and ours extends the admin's
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "axes",
    "corsheaders",
    "threadsvc.access",
    "messages_app",
]
# Middleware for every request.
SHARED_MIDDLEWARE = [
    *(["threadsvc.observability.requests.MetricsMiddleware"] if METRICS_PORT else []),
    "threadsvc.observability.requests.RequestIdMiddleware",
    *(["threadsvc.api.middleware.CorsMiddleware"] if CORS_ALLOWED_ORIGINS else []),
    "threadsvc.api.middleware.ShapeMiddleware",
    "threadsvc.api.middleware.JSONErrorMiddleware",
]
# Middleware for requests to API_PATHS, which need no sessions, cookies or static files.
API_MIDDLEWARE = [
    *SHARED_MIDDLEWARE,
    "threadsvc.api.middleware.APISecurityMiddleware",
    "threadsvc.api.middleware.HostMiddleware",
]
# Middleware for all other requests: pages, the admin, static files, probes.
MIDDLEWARE = [
    *SHARED_MIDDLEWARE,
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "threadsvc.access.middleware.PageSecurityMiddleware",
    "threadsvc.access.middleware.PageMiddleware",  # checks the Host and sets Content-Length
    # For the admin only:
    "threadsvc.access.middleware.AdminBodyLimitMiddleware",
    "threadsvc.access.middleware.AdminNullCharacterMiddleware",
    "threadsvc.access.middleware.AdminSessionMiddleware",
    "threadsvc.access.middleware.AdminCsrfMiddleware",
    "threadsvc.access.middleware.AdminAuthenticationMiddleware",
    "threadsvc.access.middleware.AdminMessageMiddleware",
    "axes.middleware.AxesMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
]
API_PATHS = ("/threads", "/v1/")
ROOT_URLCONF = "threadsvc.urls"
WSGI_APPLICATION = "threadsvc.wsgi.application"
APPEND_SLASH = False
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# Storage

DATABASE_URL = env_text("DATABASE_URL") or f"sqlite:///{quote(str(data_file('threadsvc.db')))}"
THREADS_DATABASE_URL = env_text("THREADS_DATABASE_URL", DATABASE_URL)
DATABASES = {"default": database_from_url("DATABASE_URL", DATABASE_URL, THREADS_PER_WORKER)}
threads_database = database_from_url("THREADS_DATABASE_URL", THREADS_DATABASE_URL, THREADS_PER_WORKER)
if threads_database != DATABASES["default"]:
    DATABASES["threads"] = threads_database
DATABASE_ROUTERS = ["threadsvc.engines.router.ThreadsRouter"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Tenants. A thread (messages_app) and an API key (threadsvc/access) each belong to one tenant.

DEFAULT_TENANT = "default"  # the tenant of requests without a key
MAX_TENANT_CHARACTERS = 64

# Requests. MAX_THREAD_BODY_BYTES is the limit for POST /threads, whose body may contain many messages. MAX_BODY_BYTES
# is the limit for all other bodies.

MAX_BODY_BYTES = env_int("THREADSVC_MAX_BODY_BYTES", 4 * 1024 * 1024, least=1024, most=1024**3)
MAX_THREAD_BODY_BYTES = 4 * MAX_BODY_BYTES
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_THREAD_BODY_BYTES

RATE_LIMIT = env_rate("THREADSVC_RATE_LIMIT")
RATE_FILE = data_file("rates") if RATE_LIMIT else DATA_DIR / "rates"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["threadsvc.access.authentication.BearerKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": [
        "threadsvc.access.permissions.PlainEncoding",
        "threadsvc.access.permissions.BodyWithinLimit",
        "threadsvc.access.permissions.OwnOriginWrites",
        "threadsvc.access.permissions.WritingKeys",
    ],
    "DEFAULT_THROTTLE_CLASSES": ["threadsvc.access.throttle.RateLimit"] if RATE_LIMIT else [],
    "DEFAULT_PARSER_CLASSES": ["threadsvc.api.json.JSONBodyParser"],
    "DEFAULT_RENDERER_CLASSES": ["threadsvc.api.json.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "threadsvc.api.json.JSONOnly",
    "DEFAULT_SCHEMA_CLASS": "threadsvc.api.openapi.ContractSchema",
    "EXCEPTION_HANDLER": "threadsvc.api.errors.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
    "DEFAULT_METADATA_CLASS": None,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "threadsvc",
    "DESCRIPTION": "A self-hosted store of conversations: threads and the messages in them. "
    "Start with Create Thread. The `id` in its response is the `thread_id` of Create Message.",
    "VERSION": __version__,
    "LICENSE": {"name": "MIT"},
    "SERVERS": [{"url": "/v1"}, {"url": "/"}],
    "TAGS": [{"name": "Threads"}, {"name": "Messages"}],
    "PREPROCESSING_HOOKS": ["threadsvc.api.openapi.one_prefix"],
    "POSTPROCESSING_HOOKS": ["threadsvc.api.openapi.with_components"],
    "OAS_VERSION": "3.1.0",
    "ENABLE_DJANGO_DEPLOY_CHECK": False,
}

# The function that each worker process calls when it starts.

ON_WORKER_START = "messages_app.store.deletion.wake_purger"

# Pages. WhiteNoise serves static files from the packages, so there is no collectstatic step.

STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True
LANGUAGE_CODE = "en"
USE_I18N = False
TIME_ZONE = "UTC"

LOG_LEVEL = env_choice("THREADSVC_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
LOG_FORMAT = env_choice("THREADSVC_LOG_FORMAT", "json", ("json", "text"))
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "threadsvc.observability.logs.LineFormatter",
            "form": LOG_FORMAT,
            "with_words": DEBUG,
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    # Other loggers stay at INFO, because at DEBUG drivers and servers log statements and requests with their content.
    "root": {"handlers": ["stderr"], "level": "INFO" if LOG_LEVEL == "DEBUG" else LOG_LEVEL},
    "loggers": {
        "threadsvc": {"level": LOG_LEVEL},
        "messages_app": {"level": LOG_LEVEL},
        "django": {"handlers": [], "level": "NOTSET", "propagate": True},
        # Django's log lines contain the path, which contains ids. threadsvc/observability/requests.py logs the route
        # instead.
        "django.request": {"level": "CRITICAL"},
        "django.security": {"level": "CRITICAL"},
        # The pool's warnings are not needed, because threadsvc/api/errors.py logs an unavailable database once for each
        # request.
        "psycopg.pool": {"level": "ERROR"},
        # Only failed log-ins are logged, not each step of the check.
        "axes": {"level": "WARNING"},
    },
}

# Refuse unknown names, because otherwise a misspelt setting would have no effect.

unknown = sorted(name for name in os.environ if name.startswith("THREADSVC_") and name not in SETTINGS_READ)
if unknown:
    raise unknown_setting(unknown[0])
