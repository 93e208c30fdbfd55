"""What is done to a data folder as a whole, journal, history and audit log together: check, backup, restore."""
