"""The vocabulary that the launcher and the trainers share: config schema, run folder, errors."""
