"""The trainer: looks for new answers, trains, judges, releases."""
