"""Measuring: metrics with chance and intervals, baselines, and the report page."""
