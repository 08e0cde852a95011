"""Long work beside the server: job specs, a store that survives kills, runners and the queue per device."""
