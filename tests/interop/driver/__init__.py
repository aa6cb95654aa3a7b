"""Runs the peers against each other, and judges what Sentry would have received."""
