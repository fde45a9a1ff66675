"""The assets, one file a stage of the way of the data; `spec` says what they have in common."""
