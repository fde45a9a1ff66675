"""The file formats of measured expression, one file per technology."""
