"""The one exception that users see: a line that says what is wrong, where, and what to do."""


class UserError(Exception):
    """Bad input or a missing piece that the user can mend.

    Scripts print it as one line and exit with code 2.
    """
