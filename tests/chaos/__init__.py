"""Accidents and attacks from a seeded generator, and what must not come of them.

``python -m tests.chaos`` runs them; docs/reliability.md says what is expected.
"""
