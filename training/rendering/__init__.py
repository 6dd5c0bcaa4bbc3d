"""Music that nothing was coded from before: composed or read from MIDI files, played, mixed and mastered by code."""
