"""The parts of ``ragsvc evaluate``: questions, settings, asking, judging, and the report as table, JSON and page."""
