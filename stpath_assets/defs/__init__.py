"""The Dagster side: the only folder that imports dagster.

One file per Dagster concept. Assets are thin: they resolve paths, call the domain and report. The computation is tested
without an orchestrator. `build` assembles everything.
"""
