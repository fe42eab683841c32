"""Accidents and attacks from a seeded generator: kills, full disks, damaged files, strange pictures, wrong words.

``python -m tests.chaos`` runs them, each in a child of a warm parent; docs/reliability.md says what is expected.
"""
