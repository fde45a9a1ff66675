"""Tools for development. They are not installed with the package."""
