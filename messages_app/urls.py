"""The API's paths, mounted under / and /v1.

They are written out, since the contract fixes each path and method, and no router has these: `/threads/runs`
(create_and_run) is an unknown path, not a thread of that name. An id is any text: a malformed one is a 404 of ours.
"""

from django.urls import path

from messages_app.views import MessageViewSet, ThreadViewSet, unknown_path

MESSAGES = "threads/<str:thread_id>/messages"
MESSAGE = f"{MESSAGES}/<str:message_id>"

urlpatterns = [
    path("threads", ThreadViewSet.as_view({"get": "list", "post": "create"})),
    path("threads/runs", unknown_path),
    path("threads/<str:thread_id>", ThreadViewSet.as_view({"get": "retrieve", "post": "modify", "delete": "destroy"})),
    path(MESSAGES, MessageViewSet.as_view({"get": "list", "post": "create"})),
    path(MESSAGE, MessageViewSet.as_view({"get": "retrieve", "post": "modify", "delete": "destroy"})),
    path(f"{MESSAGE}/files", MessageViewSet.as_view({"get": "list_files"})),
    path(f"{MESSAGE}/files/<str:file_id>", MessageViewSet.as_view({"get": "retrieve_file"})),
]
