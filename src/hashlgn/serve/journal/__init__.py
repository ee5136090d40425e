"""The journal: events that last, and the histories that they make."""

from hashlgn.serve.journal.events import Event, HistoryEntry, Outcome, time_text
from hashlgn.serve.journal.journal import Journal
from hashlgn.serve.journal.live import LiveHistories, Stored

__all__ = ["Event", "HistoryEntry", "Journal", "LiveHistories", "Outcome", "Stored", "time_text"]
