"""The command line: options, progress, tables and exit codes."""
