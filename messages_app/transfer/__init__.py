"""Import and export of threads: JSON Lines, objects of OpenAI's API, Rubra's MongoDB collections.

An import goes through these modules: files.py and reader.py (JSON objects), formats.py (threads), staging.py (separate
threads and messages), validation.py with fields.py and fast_path.py (rows), importing.py (the store).
An export is json_lines.py.
"""

from messages_app.transfer.json_lines import export_lines

__all__ = ["export_lines"]
