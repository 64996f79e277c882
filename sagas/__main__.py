"""``python -m sagas``: the same program as ``sagas``."""

from sagas.cli import main

if __name__ == "__main__":
    main()
