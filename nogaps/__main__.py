"""`python -m nogaps` is the command line."""

from nogaps.commands.main import main

main()
