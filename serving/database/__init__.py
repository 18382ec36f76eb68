"""The PostgreSQL database: tables, sessions, migrations."""
