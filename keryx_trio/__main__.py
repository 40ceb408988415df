"""`keryx-trio`, also as `python -m keryx_trio`."""

from .cli import main

if __name__ == "__main__":
    main()
