from django.apps import AppConfig


class AccessConfig(AppConfig):
    name = "threadsvc.access"
    label = "access"
    verbose_name = "Access"
