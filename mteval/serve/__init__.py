"""Scorers as an HTTP service for any trainer: wire format (docs/serve.md), service, and the server around it."""
