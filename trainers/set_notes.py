"""What the user should know about a run's sets, such as files that were left out and words that are unknown."""

from __future__ import annotations

from drumbeat.trainers.build import Sets


def notes_of(sets: Sets) -> list[str]:
    """The notes of all sets, each with the names of the sets that it is true of. A set tells them by its method
    `notes`."""
    told: dict[str, list[str]] = {}
    for name in ("train", "validation", "test"):
        for note in getattr(getattr(sets, name), "notes", list)():
            told.setdefault(str(note), []).append(f"data.{name}")
    return [f"{', '.join(names)}: {note}" for note, names in told.items()]
