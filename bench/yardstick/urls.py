from django.urls import path

from bench.yardstick.views import EmptyView, MessagesView, MessageView

urlpatterns = [
    path("threads/<str:thread_id>/messages", MessagesView.as_view()),
    path("threads/<str:thread_id>/messages/<str:message_id>", MessageView.as_view()),
    path("empty", EmptyView.as_view()),
]
