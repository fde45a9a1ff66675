"""The assets, one file per stage of the data flow. `spec` holds what they share."""
