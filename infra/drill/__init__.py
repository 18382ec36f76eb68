"""The restore drill: from an empty PostgreSQL and an empty object store to an API that answers."""
