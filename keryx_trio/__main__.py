"""`keryx-trio`, also as `python -m keryx_trio`."""

from .transports.cli import main

if __name__ == "__main__":
    main()
