"""What the launcher and the trainers share: the config schema, the run folder, and errors."""
