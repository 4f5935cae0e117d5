"""From labelled molecules to a run folder."""
