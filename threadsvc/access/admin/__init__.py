"""The admin's pages for accounts and API keys."""

from threadsvc.access.admin import accounts, api_keys  # noqa: F401  # the import registers the pages
