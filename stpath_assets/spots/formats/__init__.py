"""The forms of files of measured expression, one file a technology."""
