"""Chat with a model. threadsvc stores the conversation: start the program again to continue it."""

import os
import sys
import warnings
from pathlib import Path
from uuid import uuid4

from openai import OpenAI

# The SDK's warning is about OpenAI's own Assistants API, not about threadsvc.
warnings.filterwarnings("ignore", "The Assistants API is deprecated")

MODEL = os.environ["MODEL"]
model = OpenAI()  # reads OPENAI_BASE_URL and OPENAI_API_KEY
threads = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="any").beta.threads
saved = Path("chat-thread-id")  # delete this file to start a new conversation
if not saved.exists():
    saved.write_text(threads.create().id)
thread_id = saved.read_text()


def newest_messages():
    page = threads.messages.list(thread_id, limit=50)  # newest first
    return [{"role": each.role, "content": each.content[0].text.value} for each in reversed(page.data)]


def store(role, content):
    key = {"Idempotency-Key": str(uuid4())}  # a retry by the SDK is stored once
    threads.messages.create(thread_id, role=role, content=content, extra_headers=key)


for message in newest_messages():
    print(f"{message['role']}: {message['content']}")
print("> ", end="", flush=True)
for line in filter(str.strip, sys.stdin):
    question = {"role": "user", "content": line.strip()}
    answer = model.chat.completions.create(model=MODEL, messages=[*newest_messages(), question])
    store(**question)
    store("assistant", answer.choices[0].message.content)
    print(f"{answer.choices[0].message.content}\n> ", end="", flush=True)
