"""Settings, read top to bottom. Every one that can be set from outside comes from an environment variable, is read by
one of the readers below, and stands in the README's table (a test compares them)."""

import os
import re
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.core.exceptions import ImproperlyConfigured

from threadsvc import __version__
from threadsvc.databases import database_from_url

BASE_DIR = Path(__file__).resolve().parent.parent

# Readers. A value that cannot be what the setting wants is refused by name; nothing is guessed.

SETTINGS_READ: set[str] = set()


def env_text(name: str, default: str = "") -> str:
    """The variable's value; from the file that NAME_FILE names where that is set (for secrets); else `default`."""
    SETTINGS_READ.update((name, f"{name}_FILE"))
    value, file_name = os.environ.get(name, ""), os.environ.get(f"{name}_FILE", "")
    if value and file_name:
        raise ImproperlyConfigured(f"{name} and {name}_FILE are both set; set one")
    if file_name:
        try:
            value = Path(file_name).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise ImproperlyConfigured(f"{name}_FILE: cannot read {file_name}: {reason}") from error
    return value or default


def env_int(name: str, default: int, least: int, most: int) -> int:
    text = env_text(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise ImproperlyConfigured(f"{name}={text!r}: must be a whole number from {least} to {most}")
    return int(text)


def env_bool(name: str, default: bool) -> bool:
    text = env_text(name, "1" if default else "0")
    if text not in ("0", "1"):
        raise ImproperlyConfigured(f"{name}={text!r}: must be 0 or 1")
    return text == "1"


def env_list(name: str, default: str = "") -> list[str]:
    return [item.strip() for item in env_text(name, default).split(",") if item.strip()]


def env_choice(name: str, default: str, choices: tuple[str, ...]) -> str:
    text = env_text(name, default)
    if text not in choices:
        raise ImproperlyConfigured(f"{name}={text!r}: must be one of {', '.join(choices)}")
    return text


def data_file(name: str) -> Path:
    """The path of a file in the data directory, which is made, for its owner alone, where it is missing."""
    try:
        DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(DATA_DIR, error) from error
    return DATA_DIR / name


def read_or_create(path: Path, create: Callable[[], str]) -> str:
    """The text of `path`, made with mode 0600 where it is missing. Of several processes that make it, one wins."""
    try:
        if not path.exists():
            descriptor, draft = tempfile.mkstemp(dir=path.parent)  # mode 0600
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(create())
                    file.flush()
                    os.fsync(descriptor)  # before it has its name: a power cut leaves all of it or nothing
                os.link(draft, path)  # fails where the name is taken: never a half-written or a second key
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
        raise ImproperlyConfigured(f"{path} is empty or not text: delete it, and a new one is made")
    return text


def unusable(path: Path, error: OSError) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"cannot use {path}: {error.strerror}; THREADSVC_DATA_DIR names a writable directory")


# The process

DATA_DIR = Path(env_text("THREADSVC_DATA_DIR", str(BASE_DIR / "var"))).absolute()
HOST = env_text("HOST", "127.0.0.1")
PORT = env_int("PORT", 8000, least=1, most=65535)
WEB_CONCURRENCY = env_int("WEB_CONCURRENCY", max(2, os.cpu_count() or 1), least=1, most=256)
THREADS_PER_WORKER = env_int("THREADSVC_THREADS_PER_WORKER", 8, least=1, most=256)
SHUTDOWN_SECONDS = env_int("THREADSVC_SHUTDOWN_SECONDS", 30, least=1, most=600)

# Security

DEBUG = env_bool("THREADSVC_DEBUG", default=False)
SECRET_KEY = env_text("THREADSVC_SECRET_KEY") or read_or_create(
    data_file("secret_key"), lambda: secrets.token_urlsafe(50)
)
# The name a server listens on is a name that it is called by, unless it is the address that stands for all of them.
OWN_NAME = "" if HOST in ("0.0.0.0", "::") else f"[{HOST}]" if ":" in HOST else HOST
ALLOWED_HOSTS = env_list("THREADSVC_ALLOWED_HOSTS", f"localhost,127.0.0.1,[::1],{OWN_NAME}")
if not ALLOWED_HOSTS:
    raise ImproperlyConfigured("THREADSVC_ALLOWED_HOSTS names no host: every request would be refused")
CSRF_TRUSTED_ORIGINS = env_list("THREADSVC_TRUSTED_ORIGINS")
for origin in CSRF_TRUSTED_ORIGINS:
    if not re.fullmatch(r"https?://[^/?#@\s]+", origin):
        raise ImproperlyConfigured(
            f"THREADSVC_TRUSTED_ORIGINS: {origin!r} is not http(s)://host or http(s)://host:port"
        )
CSRF_COOKIE_HTTPONLY = True

# What is installed

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "threadsvc",
    "messages_app",
]
MIDDLEWARE = [
    "threadsvc.observability.RequestIdMiddleware",
    "threadsvc.shapes.ShapeMiddleware",
    "threadsvc.errors.JSONErrorMiddleware",
    "django.middleware.common.CommonMiddleware",  # checks Host, sets Content-Length
    # What follows serves people (admin) and steps aside for the API, which knows no cookies.
    "threadsvc.access.middleware.AdminBodyWithinLimit",
    "threadsvc.access.middleware.RefuseNulInAdmin",
    "threadsvc.access.middleware.AdminSessionMiddleware",
    "threadsvc.access.middleware.AdminCsrfMiddleware",
    "threadsvc.access.middleware.AdminAuthenticationMiddleware",
    "threadsvc.access.middleware.AdminMessageMiddleware",
    "threadsvc.access.middleware.PageSecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
]
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
DATABASE_ROUTERS = ["threadsvc.databases.ThreadsRouter"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Requests. A body within the first limit is always judged; POST /threads may hold many messages (views raise it).

MAX_BODY_BYTES = env_int("THREADSVC_MAX_BODY_BYTES", 4 * 1024 * 1024, least=1024, most=1024**3)
MAX_THREAD_BODY_BYTES = 4 * MAX_BODY_BYTES
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_THREAD_BODY_BYTES

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [
        "threadsvc.access.permissions.BodyWithinLimit",
        "threadsvc.access.permissions.OwnOriginWrites",
    ],
    "DEFAULT_PARSER_CLASSES": ["threadsvc.parsers.JSONBodyParser"],
    "DEFAULT_RENDERER_CLASSES": ["threadsvc.renderers.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "threadsvc.renderers.OneFormat",
    "DEFAULT_SCHEMA_CLASS": "threadsvc.openapi.ContractSchema",
    "EXCEPTION_HANDLER": "threadsvc.errors.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
    "DEFAULT_METADATA_CLASS": None,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "threadsvc",
    "DESCRIPTION": "A self-hosted store of conversations: threads and the messages in them. "
    "Create Thread comes first: the id in its answer is the `thread_id` of Create Message.",
    "VERSION": __version__,
    "LICENSE": {"name": "MIT"},
    "SERVERS": [{"url": "/"}, {"url": "/v1"}],
    "TAGS": [{"name": "Threads"}, {"name": "Messages"}],
    "PREPROCESSING_HOOKS": ["threadsvc.openapi.one_prefix"],
    "POSTPROCESSING_HOOKS": ["threadsvc.openapi.with_error_schemas"],
    "OAS_VERSION": "3.1.0",
    "ENABLE_DJANGO_DEPLOY_CHECK": False,
}

# What a fault of a value is told in, by programs as by answers.

WORDS_OF_FAULTS = "threadsvc.errors.words_of"

# What each worker process runs when it starts.

ON_WORKER_START = "messages_app.purging.wake_purger"

# Pages: static files come from the packages that hold them; there is no collectstatic step.

STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True
LANGUAGE_CODE = "en"
USE_I18N = False
TIME_ZONE = "UTC"
USE_TZ = True

LOG_LEVEL = env_choice("THREADSVC_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "request_id": {"()": "threadsvc.observability.RequestIdFilter"},
        "only_500": {
            "()": "django.utils.log.CallbackFilter",
            "callback": lambda record: getattr(record, "status_code", 500) == 500,
        },
    },
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["request_id"]},
    },
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django": {"handlers": [], "level": "INFO", "propagate": True},
        # Refused requests are answers, not events; what is worth a line there is a 500. A 503 or 507 has its own line.
        "django.request": {"level": "ERROR", "filters": ["only_500"]},
        "django.security": {"level": "CRITICAL"},
        # A server that is away is told of once a request, by who needed it.
        "psycopg.pool": {"level": "ERROR"},
    },
}

unknown = sorted(
    name for name in os.environ if name.startswith("THREADSVC_") and name not in SETTINGS_READ
)  # a misspelt setting would otherwise be ignored in silence
if unknown:
    raise ImproperlyConfigured(f"{unknown[0]} is not a setting; the README lists them")
