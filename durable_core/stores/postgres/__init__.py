"""The PostgreSQL store. It takes the extra ``postgres``: its driver is asyncpg."""
