"""Views for the three measured operations, and an empty view that shows the cost of DRF itself."""

from datetime import UTC, datetime
from os import urandom
from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from bench.yardstick.storage import storage
from messages_app.ids import new_id, new_object_id

PAGE = 20


class MessagesView(APIView):
    def post(self, request: Request, thread_id: str) -> Response:
        sent: Any = request.data
        now = datetime.now(UTC)
        message: dict[str, Any] = {
            "_id": new_object_id(now, urandom(8)),
            "id": new_id("msg", now, urandom(10)),
            "object": "thread.message",
            "created_at": int(now.timestamp()),
            "thread_id": thread_id,
            "role": sent["role"],
            "content": [{"type": "text", "text": {"value": sent["content"], "annotations": []}}],
            "assistant_id": "",
            "run_id": "",
            "file_ids": [],
            "metadata": {},
        }
        if storage.append(message, now.replace(microsecond=0)):
            return Response(message)
        return Response({"detail": f"Thread with ID '{thread_id}' not found"}, 404)

    def get(self, request: Request, thread_id: str) -> Response:
        found = storage.newest(thread_id, PAGE + 1)
        shown = found[:PAGE]
        first_id, last_id = shown[0]["id"], shown[-1]["id"]
        has_more = len(found) > PAGE
        page = {"object": "list", "data": shown, "first_id": first_id, "last_id": last_id, "has_more": has_more}
        return Response(page)


class MessageView(APIView):
    def get(self, request: Request, thread_id: str, message_id: str) -> Response:
        return Response(storage.message(thread_id, message_id))


class EmptyView(APIView):
    def get(self, request: Request) -> Response:
        return Response({})
