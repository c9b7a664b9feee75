"""The project: settings, HTTP policy, access, engines and serving. This package does not import `messages_app`."""

__version__ = "0.1.0"
