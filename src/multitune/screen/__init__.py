"""What a person sees while something takes long: stages with bars, and lines that stay, on one display."""
