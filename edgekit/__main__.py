"""`python -m edgekit`, for where scripts are not on the PATH."""

from edgekit.cli import main

main()
