"""``python -m launcher`` is ``rdtl``."""

from launcher.cli.app import main

if __name__ == "__main__":
    main()
