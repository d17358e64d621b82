"""The commands of `drumbeat`, one in each file; `main.py` is their table of contents."""
