"""What the papers argue with: aligned gradients, language proximity, retention, drift. docs/probes.md has the files."""
