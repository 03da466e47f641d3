"""Three hospitals on one machine, start to finish, with real patients' measurements."""
