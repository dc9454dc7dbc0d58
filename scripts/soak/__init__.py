"""The soak run: Postern under load for minutes, between clients and backends that go away at any moment."""
