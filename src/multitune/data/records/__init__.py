"""What readers hand over and tasks take: records, in memory or on disk, by split and language."""
