"""Each number that the documentation states of the engine, reproducible by `python -m benchmarks`.

`reference` holds what the engine is measured against, `measure` takes one measurement in a process of its own, `__main__`
runs them and writes the table.
"""
