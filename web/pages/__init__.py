"""One file per page: `show` answers GET, and what a form of it does answers POST."""
