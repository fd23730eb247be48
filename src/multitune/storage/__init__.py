"""The disk and the system: files that are whole or not there, locks, signals, the Hub."""
