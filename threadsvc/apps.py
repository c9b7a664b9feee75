from django.apps import AppConfig


class ThreadsvcConfig(AppConfig):
    name = "threadsvc"

    def ready(self) -> None:
        from threadsvc import checks  # noqa: F401  # the import registers the checks
