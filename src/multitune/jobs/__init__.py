"""Several runs at once: jobs, the processes (here or on a Ray cluster) that do them, one display for all."""
