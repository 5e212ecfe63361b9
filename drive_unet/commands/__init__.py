"""The command line, one module per command; `main` has their options and how errors are told."""
