"""Commands: parse, build from the settings, call, print. Nothing else lives here."""
