"""What a user can ask for, one module a verb; the command line and ``multitune`` itself call them."""
