"""What only development needs: nothing here is installed with the package."""
