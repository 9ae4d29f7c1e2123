"""Celery workers and the pipeline they run: read, prepare, segment, judge, write."""
