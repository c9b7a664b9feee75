"""The paths of /threads, mounted under / and /v1.

The contract fixes each path and method, so there is no router. A path accepts any string as an id. A malformed id gets
404, like an unknown id.
"""

from django.urls import path, register_converter
from django.urls.converters import StringConverter

from messages_app.api.assistants.views import MessageViewSet, ThreadViewSet


class LastOfPath(StringConverter):
    """A thread id at the end of a path.

    It does not match `runs`. OpenAI's API has a path /threads/runs (create_and_run), which is an unknown path here.
    """

    regex = r"(?!runs\Z)[^/]+"


register_converter(LastOfPath, "thread")

THREAD_PATH = "threads/<thread:thread_id>"
MESSAGES_PATH = "threads/<str:thread_id>/messages"
MESSAGE_PATH = f"{MESSAGES_PATH}/<str:message_id>"

# Django tries the paths in this order, so the most frequent ones are first.
urlpatterns = [
    path(MESSAGES_PATH, MessageViewSet.as_view({"get": "list", "post": "create"})),
    path(MESSAGE_PATH, MessageViewSet.as_view({"get": "retrieve", "post": "modify", "delete": "destroy"})),
    path("threads", ThreadViewSet.as_view({"get": "list", "post": "create"})),
    path(THREAD_PATH, ThreadViewSet.as_view({"get": "retrieve", "post": "modify", "delete": "destroy"})),
    path(f"{MESSAGE_PATH}/files", MessageViewSet.as_view({"get": "list_files"})),
    path(f"{MESSAGE_PATH}/files/<str:file_id>", MessageViewSet.as_view({"get": "retrieve_file"})),
]
