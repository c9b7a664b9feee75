"""The project: settings, wiring and the error envelope. It knows HTTP; it does not know threads and messages."""

__version__ = "0.1.0"
