"""What a run and a comparison leave in their folders, as types."""
