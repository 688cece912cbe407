"""Live decisions: from events as they arrive to answers that take effect, within limits."""
