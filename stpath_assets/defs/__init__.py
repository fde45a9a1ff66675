"""The Dagster side: the only folder that imports dagster.

One file a concept. Assets are thin: they resolve paths, call the domain and report; what is computed is tested without
an orchestrator. Everything is put together in `build`.
"""
