"""The API's paths, mounted under / and /v1.

They are written out, since the contract fixes each path and method. An id is any text: a malformed one is a 404 of
ours.
"""

from django.urls import path, register_converter
from django.urls.converters import StringConverter

from messages_app.api.assistants.views import MessageViewSet, ThreadViewSet


class LastOfPath(StringConverter):
    """A thread's id, but not `runs`: that is create_and_run, an unknown path, and not a thread of that name."""

    regex = r"(?!runs\Z)[^/]+"


register_converter(LastOfPath, "thread")

THREAD_PATH = "threads/<thread:thread_id>"
MESSAGES_PATH = "threads/<str:thread_id>/messages"
MESSAGE_PATH = f"{MESSAGES_PATH}/<str:message_id>"

# Looked through from the top: what is asked for most comes first.
urlpatterns = [
    path(MESSAGES_PATH, MessageViewSet.as_view({"get": "list", "post": "create"})),
    path(MESSAGE_PATH, MessageViewSet.as_view({"get": "retrieve", "post": "modify", "delete": "destroy"})),
    path("threads", ThreadViewSet.as_view({"get": "list", "post": "create"})),
    path(THREAD_PATH, ThreadViewSet.as_view({"get": "retrieve", "post": "modify", "delete": "destroy"})),
    path(f"{MESSAGE_PATH}/files", MessageViewSet.as_view({"get": "list_files"})),
    path(f"{MESSAGE_PATH}/files/<str:file_id>", MessageViewSet.as_view({"get": "retrieve_file"})),
]
