"""What a person can mend: one clear sentence with the remedy, shown without a traceback (exit code 2)."""


class UsageError(Exception):
    """A wrong name, argument or folder, or something missing that the user can fetch."""
