"""The notebook's calls: what `import stpath_assets as sa` offers beside the stages' own functions.

`calls` are the tutorial's steps, with an answer for arguments that have another name elsewhere. They compute nothing themselves.
"""

from stpath_assets.notebook.calls import embed, predict_expression, read_prediction, tile

__all__ = ["embed", "predict_expression", "read_prediction", "tile"]
