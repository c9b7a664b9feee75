import os

os.environ["DJANGO_SETTINGS_MODULE"] = "bench.yardstick.settings"

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

from bench.yardstick import urls  # noqa: E402, F401  # imported before the workers are forked, as in the service
