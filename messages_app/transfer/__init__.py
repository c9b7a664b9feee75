"""Moving threads in and out: our own lines, and what OpenAI's API and Rubra's database give. What is stored stays in
models.py, what a value must be in fields.py."""

from messages_app.transfer.json_lines import exported

__all__ = ["exported"]
