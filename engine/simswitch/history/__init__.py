"""What happened, in SQLite: ``schema`` specifies the file, ``projector`` writes it, ``reading`` reads it."""
