"""Import and export of threads: JSON Lines, objects of OpenAI's API, Rubra's MongoDB collections.

An import uses these modules in order:

- files.py and reader.py read JSON objects.
- formats.py finds the threads in them.
- staging.py groups separate threads and messages.
- validation.py, with fields.py and fast_path.py, converts threads to rows.
- importing.py stores the rows.

json_lines.py writes exports.
"""

from messages_app.transfer.json_lines import export_lines

__all__ = ["export_lines"]
