"""One file a command: `add_arguments(parser)` says what it takes, `run(arguments, settings)` does it and answers the exit code."""
